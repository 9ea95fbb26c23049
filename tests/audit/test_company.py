"""A lone caller's records are written on the loop; those of callers that come one by one soon gather.

Seen to fail: with no record tried on a thread, with every one tried, with two that came taken for
company, with company remembered after it had gone, and with no end to writing on threads.
"""

import asyncio
import os
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log
from audit.company import PROBE_EVERY, WRITES_MAX, Company


def test_a_lone_caller_is_tried_now_and_then():
    company = Company()
    tried = 0
    for _ in range(10 * (PROBE_EVERY + 1)):
        if company.gathers(1):
            tried += 1
            company.came(1, 2)
    assert tried == 10


def test_batches_that_gather_by_themselves_are_never_tried():
    company = Company()
    assert not any(company.gathers(1 + n % 2) for n in range(10 * PROBE_EVERY))


def test_company_is_kept_for_as_long_as_it_comes():
    company = Company()
    while not company.gathers(1):
        pass
    for written, waiting in ((1, 3), (3, 30), (30, 0), (2, 2)):
        company.came(written, waiting)
        assert company.gathers(1)
        assert company.gathers(40)
    company.came(2, 1)
    assert not company.gathers(1)


def test_now_and_then_it_is_seen_whether_batches_gather_by_themselves():
    company = Company()
    on_thread = 0
    for _ in range(20 * WRITES_MAX):
        # By themselves they would: whoever asks together, as over REST.
        records = 16 if on_thread else 1
        if company.gathers(records):
            on_thread += 1
            company.came(records, 8)
    assert 1 < on_thread <= WRITES_MAX + 1


@pytest.mark.parametrize(("callers", "most"), [(1, 1.0), (16, 0.5)])
async def test_callers_whom_the_loop_takes_up_one_by_one_share_syncs(
    tmp_path, monkeypatch, callers, most
):
    for bound in ("INLINE_BELOW_S", "STALLED_S"):
        monkeypatch.setattr(f"audit.disk_pace.{bound}", float("inf"))
    log = await Log.open(tmp_path, origin="example.org/one", key=Ed25519PrivateKey.generate())
    sync, synced = os.fdatasync, []

    def slow(file):
        if file == log._wal._file:
            synced.append(file)
        sync(file)
        time.sleep(0.001)

    monkeypatch.setattr(os, "fdatasync", slow)
    # What the loop takes up: one caller in each turn, as a library of its own hands them over.
    arrived = asyncio.Queue()

    async def ask(times):
        for _ in range(times):
            answered = asyncio.get_running_loop().create_future()
            arrived.put_nowait(answered)
            await answered

    async def take_up():
        while True:
            answered = await arrived.get()
            log.append(b"leaf").add_done_callback(lambda _, it=answered: it.set_result(None))
            await asyncio.sleep(0)

    taking = asyncio.ensure_future(take_up())
    await asyncio.gather(*(ask(480 // callers) for _ in range(callers)))
    taking.cancel()
    assert log.size == 480
    assert len(synced) <= most * 480
    assert callers > 1 or len(synced) == 480
    await log.close()
