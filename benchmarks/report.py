"""What it takes to make a report: the logs verified, each record proved, the PDF drawn, the zip packed.

    taskset -c 0 python benchmarks/report.py [--records 1300] [--pages 50]

One process on one core. An access report over so many requests of a hospital's month; its PDF must have
at least the pages asked for. The whole zip is then verified, as whoever receives it would.
"""

import argparse
import asyncio
import io
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pypdf
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.records import Action, Outcome, Problem, RequestRecord, encode
from audit.reports import KINDS, LogSource, build_report, make_package, record_package, verify_report
from audit.reports.filters import Filters
from audit.reports.package import to_zip

BEGAN = datetime(2026, 10, 1, 8, tzinfo=UTC)
REFUSED_IN = 10


def requests(count: int) -> list[RequestRecord]:
    chosen = random.Random(7)
    records = []
    for number in range(count):
        refused = number % REFUSED_IN == 0
        records.append(
            RequestRecord(
                time=BEGAN + timedelta(seconds=number * 2_500_000 // count),
                id=UUID(int=chosen.getrandbits(128)),
                action=Action.INFER,
                outcome=Outcome.REFUSED if refused else Outcome.SERVED,
                status=403 if refused else 200,
                problem=Problem.POLICY_REFUSED if refused else None,
                principal=f"dr.{chosen.choice(('adams', 'brandt', 'okafor', 'silva'))}",
                roles=("clinician",),
                subject=f"{chosen.getrandbits(256):064x}",
                model="sepsis",
                model_version="2",
                model_digest="ab" * 32,
                data_class="phi",
                jurisdiction="US-CA",
                purpose="TREAT",
                placement=None if refused else chosen.choice(("node:us-1", "node:lab-east")),
                policies=("gdpr-transfer",) if refused else ("hipaa-treatment",),
                obligations=("no_cache", "round(outputs,3)"),
                bundle="cd" * 32,
                rows=1,
                duration_us=4000,
            )
        )
    return records


class Site:
    def __init__(self, folder: Path) -> None:
        self.keys = {name: Ed25519PrivateKey.generate() for name in ("gateway-1", "reports")}
        self.sources = {
            name: LogSource(
                folder=folder / name, verifier=NoteVerifier(f"bench/{name}", key.public_key())
            )
            for name, key in self.keys.items()
        }

    async def open(self, name: str) -> Log:
        return await Log.open(self.sources[name].folder, origin=f"bench/{name}", key=self.keys[name])

    async def fill(self, count: int) -> None:
        log = await self.open("gateway-1")
        await asyncio.gather(*(log.append(encode(record)) for record in requests(count)))
        await log.close()


def timed(what: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    print(f"{what:<44} {time.perf_counter() - began:7.2f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1300)
    parser.add_argument("--pages", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        asyncio.run(site.fill(options.records))
        began = time.perf_counter()
        source = site.sources["gateway-1"]
        report = timed(
            f"verify the log, prove {options.records:,} records",
            lambda: build_report(KINDS["access"], "bench", [source], Filters()),
        )
        package = timed("draw the PDF, write CSV, JSON and FHIR", lambda: make_package(report))

        async def record() -> bytes:
            log = await site.open("reports")
            return await record_package(package, log, site.sources["reports"], record_id=uuid4())

        receipt = timed("record that it was made", lambda: asyncio.run(record()))
        data = timed("pack the zip", lambda: to_zip(package, receipt))
        print(f"{'in all':<44} {time.perf_counter() - began:7.2f} s")
        file = Path(folder) / "report.zip"
        file.write_bytes(data)
        keys = [source.verifier for source in site.sources.values()]
        timed("verify the zip", lambda: verify_report(file, keys))
        pages = len(pypdf.PdfReader(io.BytesIO(package.files["report.pdf"])).pages)
        print(f"{pages} pages, {len(data) / 1e6:.1f} MB")
        if pages < options.pages:
            raise SystemExit(f"{pages} pages are fewer than {options.pages}: give more --records")


if __name__ == "__main__":
    main()
