"""Whatever happens to its machine, a log loses no answered record and contradicts no checkpoint.

Seen to fail: with the write in `WriteAheadLog.append` left out, and with `_settle` ahead of it.
"""

import asyncio
import base64
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.log_writers import KEY, ORIGIN, leaf, make_everything_frequent

from audit import Log, LogBusy, NoteVerifier, open_checkpoint
from audit import log as log_module
from audit import quicker as quicker_module
from audit import segment as segment_module
from audit import wal as wal_module
from audit.merkle import verify_consistency
from audit.verify import read_checkpoint, verify_log

TESTS = Path(__file__).parents[1]
VERIFIER = NoteVerifier(ORIGIN, KEY.public_key())
KILLS = 250


class Writers:
    """The forking process, and what its children said."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.log_writers", str(folder)],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answered = {}
        self.notes = set()

    def kill_one(self, after_s):
        """Start a writer, kill it `after_s` seconds later, and take down what it had said."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        _, pid = self.process.stdout.readline().split()
        timer = threading.Timer(after_s, subprocess.run, (["kill", "-9", pid],))
        timer.start()
        try:
            for line in self.process.stdout:
                kind, *rest = line.split()
                if kind == "d":
                    assert rest == ["killed"]
                    return
                if kind == "a":
                    index, number = map(int, rest)
                    assert index not in self.answered
                    self.answered[index] = number
                else:
                    self.notes.add(base64.b64decode(rest[0]))
        finally:
            timer.join()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


async def test_kills_at_hundreds_of_instants_lose_no_answered_record(tmp_path, monkeypatch):
    for module, name in (
        (segment_module, "SEGMENT_BYTES"),
        (wal_module, "SEGMENTS_KEPT"),
        (log_module, "PUBLISH_INTERVAL_S"),
        (quicker_module, "TRY_AGAIN_S"),
        (quicker_module, "TRY_AGAIN_AFTER"),
        (quicker_module, "CLEARLY"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    make_everything_frequent()
    folder = tmp_path / "log"
    moments = random.Random(6962)
    writers = Writers(folder)
    try:
        for kill in range(KILLS):
            # Most come while records are written, some while the log is opened after the one before.
            writers.kill_one(moments.choice((0.004, 0.02, 0.05)) * moments.random())
            path = folder / "checkpoint"
            if path.is_file() and (note := path.read_bytes()):
                writers.notes.add(note)
            if kill % 25 == 24:
                await check(folder, writers)
    finally:
        writers.close()
    assert len(writers.answered) > KILLS
    assert len(writers.notes) > KILLS // 4


async def check(folder, writers):
    log = await Log.open(folder, origin=ORIGIN, key=KEY)
    stored = log.entries(0, log.size)
    for index, number in writers.answered.items():
        assert stored[index] == leaf(number), index
    final = log.checkpoint
    for note in writers.notes:
        seen = open_checkpoint(note, [VERIFIER])
        if seen.size:
            proof = log.consistency_proof(seen.size, final.size)
            verify_consistency(seen.size, final.size, proof, seen.root, final.root)
    await log.close()
    assert verify_log(folder, VERIFIER).records == len(stored)


def test_a_full_disk_and_a_read_only_one_are_refused_and_lose_nothing(tmp_path):
    """A tmpfs of 24 MB in a mount name space of the test's own."""
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "support.full_disk", str(tmp_path / "disk")],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "No space left on device" in result["told"]
    assert not result["writable"]
    assert result["answered"] > 1
    assert result["index"] == result["answered"]
    assert result["verified"] == result["still"] == result["kept"] == result["answered"] + 1
    assert result["same"]
    assert "Read-only file system" in result["read_only"]


async def test_a_clock_that_steps_back_changes_nothing(tmp_path, monkeypatch):
    """Nothing in a log goes by the clock: order is that of arrival, and time is what records say."""
    log = await Log.open(tmp_path, origin=ORIGIN, key=KEY)
    await log.append(leaf(0))
    first = log.checkpoint
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert await log.append(leaf(1)) == 1
    await log.close()
    log = await Log.open(tmp_path, origin=ORIGIN, key=KEY)
    proof = log.consistency_proof(1, 2)
    verify_consistency(1, 2, proof, first.root, log.checkpoint.root)
    assert log.writable
    await log.close()


async def test_a_second_writer_in_another_process_is_refused_and_harms_nothing(tmp_path):
    folder = tmp_path / "log"
    log = await Log.open(folder, origin=ORIGIN, key=KEY)
    await log.append(leaf(0))
    script = (
        "import asyncio, sys; from pathlib import Path; from audit import Log;"
        " from support.log_writers import KEY, ORIGIN;"
        " asyncio.run(Log.open(Path(sys.argv[1]), origin=ORIGIN, key=KEY))"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(folder), cwd=TESTS, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await other.communicate()
    assert b"LogBusy" in errors
    assert await log.append(leaf(1)) == 1
    # A copy is another log: it opens, and what it signs is told from this one by witnesses only.
    shutil.copytree(folder, tmp_path / "copy")
    await (await Log.open(tmp_path / "copy", origin=ORIGIN, key=KEY)).close()
    with pytest.raises(LogBusy):
        await Log.open(folder, origin=ORIGIN, key=KEY)
    await log.close()
    assert read_checkpoint(folder, VERIFIER).size == verify_log(folder, VERIFIER).records == 2
