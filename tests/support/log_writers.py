"""Forks writers of one log on demand, each to be killed: `python -m support.log_writers <folder>`.

For each line on standard input a child opens the log and appends until it dies. It prints its process
id, then `a <index> <number>` for each record that was answered and `c <note>` for checkpoints. Forking
spares the imports, so that hundreds of them take seconds.
"""

import asyncio
import base64
import os
import signal
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log
from audit import log as log_module
from audit import quicker as quicker_module
from audit import segment as segment_module
from audit import wal as wal_module
from audit.records import Action, Outcome, RequestRecord, encode

ORIGIN = "clinic/gateway-1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def make_everything_frequent() -> None:
    """Let segments, publications, releases and changes of way come so often that kills hit them too."""
    segment_module.SEGMENT_BYTES = 24 * 1024
    wal_module.SEGMENTS_KEPT = 2
    log_module.PUBLISH_INTERVAL_S = 0.002
    quicker_module.TRY_AGAIN_S, quicker_module.TRY_AGAIN_AFTER, quicker_module.CLEARLY = 0.0, 2, 9.0


def leaf(number: int) -> bytes:
    return encode(
        RequestRecord(
            time=datetime(2026, 11, 23, tzinfo=UTC),
            id=UUID(int=number),
            action=Action.INFER,
            outcome=Outcome.SERVED,
            status=200,
        )
    )


async def write(folder: Path, first: int) -> None:
    log = await Log.open(folder, origin=ORIGIN, key=KEY)
    numbers = count(first)

    async def append() -> None:
        for number in numbers:
            index = await log.append(leaf(number))
            line = f"a {index} {number}\n"
            if number % 20 == 0:
                line += f"c {base64.b64encode(log.checkpoint.note).decode()}\n"
            os.write(1, line.encode())

    await asyncio.gather(*(append() for _ in range(8)))


def main() -> None:
    make_everything_frequent()
    for turn, _ in enumerate(sys.stdin):
        child = os.fork()
        if not child:
            os.write(1, f"p {os.getpid()}\n".encode())
            asyncio.run(write(Path(sys.argv[1]), turn * 1_000_000))
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        os.write(1, b"d killed\n" if killed else b"d failed\n")


if __name__ == "__main__":
    main()
