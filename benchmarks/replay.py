"""What a replay of recorded requests costs: `python benchmarks/replay.py [--requests 100000]`.

A log of its own is made in a temporary folder, each request about somebody else's device or the site's
nodes, with varying facts; then it is verified and decided again under a stricter bundle of all packs.
"""

import argparse
import asyncio
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log
from audit.records import Action, Outcome, Place, PlaceTrait, Problem, RequestRecord, encode
from audit.reports import LogSource
from coordinator.policy.recorded import Period, replay_logs
from policies import DataClass, ModelAccess, Purpose, Role, build_bundle

PACKS = ("base", "hipaa", "gdpr", "residency")
NODES = (
    Place("node:us-1", "US-CA", (PlaceTrait.ON_PREMISES,)),
    Place("node:us-2", "US-NY", (PlaceTrait.ON_PREMISES,)),
    Place("node:de-1", "DE", (PlaceTrait.BAA,)),
)


def record_at(number: int, chance: random.Random) -> RequestRecord:
    on_device = chance.random() < 0.3
    device = (Place(f"device:{number:010x}", "US-CA", (PlaceTrait.HOLDS_SUBJECT,)),)
    refused = chance.random() < 0.3
    return RequestRecord(
        time=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=number),
        id=UUID(int=number),
        action=Action.INFER,
        outcome=Outcome.REFUSED if refused else Outcome.SERVED,
        status=403 if refused else 200,
        principal=f"dr.{number % 200}",
        roles=(chance.choice((Role.CLINICIAN, Role.RESEARCHER)).value,),
        model=f"model-{number % 20}",
        data_class=chance.choice(list(DataClass)).value,
        jurisdiction=chance.choice(("US-CA", "US-NY", "DE", "FR")),
        purpose=chance.choice(list(Purpose)).value,
        consent=chance.random() < 0.2,
        on_device=on_device,
        carries_payload=chance.random() < 0.9,
        candidates=(*NODES, *device) if on_device else NODES,
        placement=None if refused else "node:us-1",
        policies=("hipaa-treatment",),
        bundle="ab" * 32,
        problem=Problem.POLICY_REFUSED if refused else None,
        duration_us=400,
    )


async def write_log(folder: Path, requests: int) -> LogSource:
    chance = random.Random(1)
    log = await Log.open(folder, origin="clinic/gateway-1", key=Ed25519PrivateKey.generate())
    for start in range(0, requests, 4096):
        numbers = range(start, min(start + 4096, requests))
        await asyncio.gather(*(log.append(encode(record_at(n, chance))) for n in numbers))
    await log.close()
    return LogSource(folder=folder, verifier=log.verifier)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    requests = parser.parse_args().requests
    access = ModelAccess(roles=(Role.CLINICIAN, Role.RESEARCHER), purposes=tuple(Purpose))
    models = {f"model-{n}": access for n in range(20)}
    bundle = build_bundle(
        PACKS, name="clinic", version=2, models=models, residency={"US": ("US",), "DE": ("DE",)}
    )
    with tempfile.TemporaryDirectory() as folder:
        source = asyncio.run(write_log(Path(folder) / "log", requests))
        begin, begin_cpu = time.perf_counter(), time.process_time()
        run = replay_logs([source], bundle, Period())
        took, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    print(f"{run.found.decided} recorded requests, verified and decided again")
    print(f"in {took:.1f} s, {cpu:.1f} s of a core")
    print(", ".join(f"{change.value}: {count}" for change, count in sorted(run.found.counts.items())))


if __name__ == "__main__":
    main()
