"""What the log does in a second: records appended and integrated, proofs made, records verified.

    taskset -c 0 python benchmarks/log.py [--records 1000000] [--full]

One process on one core. Proofs are made in a tree of 10 million records, of which only the tiles that
the proofs read are on disk (their hashes are random: what a hash is costs nothing). Records are small;
with `--full` they hold everything that a served request's do.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.merkle import inclusion_proof
from audit.published import FileNodes
from audit.records import Action, Outcome, Place, PlaceTrait, RequestRecord, encode
from audit.tiles import WIDTH, tile_path
from audit.verify import verify_log

BATCH = 4096
LARGE = 10_000_000
PROOFS = 300
KEY = Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier("bench/log", KEY.public_key())


SMALL = RequestRecord(
    time=datetime(2026, 11, 23, 8, 30, tzinfo=UTC),
    id=UUID(int=7),
    action=Action.INFER,
    outcome=Outcome.SERVED,
    status=200,
)
ON_PREMISES = Place("node:us-1", "US-CA", (PlaceTrait.ON_PREMISES,))
FULL = msgspec.structs.replace(
    SMALL,
    principal="dr.adams",
    roles=("clinician",),
    subject="ab" * 32,
    model="breast-cancer",
    model_version="1",
    model_digest="cd" * 32,
    data_class="phi",
    jurisdiction="US-CA",
    purpose="TREAT",
    on_device=False,
    carries_payload=True,
    candidates=(ON_PREMISES, Place("node:lab-east", "US-VA", (PlaceTrait.AGREEMENT,))),
    placement=ON_PREMISES.placement,
    policies=("hipaa-treatment",),
    obligations=("no_cache", "round(outputs,3)"),
    bundle="ef" * 32,
    rows=16,
    duration_us=1_234,
)


async def append(folder: Path, leaf: bytes, count: int) -> float:
    log = await Log.open(folder, origin=VERIFIER.name, key=KEY)
    started = time.perf_counter()
    for start in range(0, count, BATCH):
        await asyncio.gather(*(log.append(leaf) for _ in range(min(BATCH, count - start))))
    took = time.perf_counter() - started
    await log.close()
    return count / took


def prove(folder: Path) -> list[float]:
    indices = [random.Random(n).randrange(LARGE) for n in range(PROOFS)]
    wanted = {(0, index // WIDTH) for index in indices} | {(0, LARGE // WIDTH)}
    level, count = 1, LARGE // WIDTH
    while count:
        wanted |= {(level, tile) for tile in range(-(-count // WIDTH))}
        level, count = level + 1, count // WIDTH
    for level, tile in wanted:
        width = min(WIDTH, (LARGE >> (8 * level)) - tile * WIDTH)
        if width > 0:
            path = folder / tile_path(level, tile, width)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(32 * width))
    took = []
    for index in indices:
        # Nothing is remembered from one proof to the next.
        started = time.perf_counter()
        inclusion_proof(index, LARGE, FileNodes(folder, LARGE).node)
        took.append(time.perf_counter() - started)
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    count, leaf = options.records, encode(FULL if options.full else SMALL)
    with tempfile.TemporaryDirectory() as name:
        took = prove(Path(name) / "large")
        print(f"inclusion proof at {LARGE:,}: p50 {statistics.median(took) * 1e3:.2f} ms,"
              f" worst {max(took) * 1e3:.2f} ms")  # fmt: skip
        per_second = asyncio.run(append(Path(name) / "log", leaf, count))
        print(f"appended and integrated: {per_second:,.0f} records/s of {len(leaf)} bytes")
        started = time.perf_counter()
        if verify_log(Path(name) / "log", VERIFIER).records != count:
            raise AssertionError
        print(f"verified {count:,} records in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
