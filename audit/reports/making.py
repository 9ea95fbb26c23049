"""Makes a report whole: read, proved, drawn, recorded, packed; for the command and the API alike."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from audit.errors import LogBusy, ReportRefused
from audit.log import Log
from audit.reports.filters import Filters, WorkingHours
from audit.reports.kind import Kind
from audit.reports.kinds import KINDS
from audit.reports.package import Package, make_package, record_package, to_zip
from audit.reports.report import Report, build_report
from audit.source import LogSource

BUSY_WAIT_S: Final = 0.05
BUSY_TRIES: Final = 200

Progress = Callable[[str, float], None]
"""Is told what is being done, and how much of the whole is (0 to 1); may be called from a thread."""


class ReportOrder(Struct, frozen=True, kw_only=True):
    """What is asked for; `principal` is who asked, and is recorded."""

    kind: Kind
    filters: Filters = Filters()
    hours: WorkingHours = WorkingHours()
    principal: str | None = None


class MadeReport(Struct, frozen=True, kw_only=True):
    """A report in all its forms, recorded at `place`."""

    report: Report
    package: Package
    receipt: bytes
    place: str

    def to_zip(self) -> bytes:
        """Return the zip file."""
        return to_zip(self.package, self.receipt)


class ReportMaker:
    """Makes the reports of one site."""

    def __init__(
        self,
        site: str,
        sources: Callable[[], Sequence[LogSource]],
        open_log: Callable[[], Awaitable[Log]],
        recorded_in: LogSource,
        new_id: Callable[[], UUID],
    ) -> None:
        """Draw on what `sources` gives; `open_log` opens the log that reports are recorded in."""
        self._site = site
        self._sources = sources
        self._open_log = open_log
        self._recorded_in = recorded_in
        self._new_id = new_id

    async def make(
        self,
        order: ReportOrder,
        progress: Progress = lambda _, __: None,
        *,
        created: datetime | None = None,
    ) -> MadeReport:
        """Return the report, once it is recorded that it was made.

        Raises:
            ReportRefused: if the kind needs a filter that was not given, or there is no log yet.
            VerificationError: if a log does not verify; no report is made from such a log.
            LogBusy, LogUnavailable: if it cannot be recorded; it must not be given out then.
        """
        package = await asyncio.to_thread(self._package, order, progress, created)
        progress("recording that it was made", 0.97)
        log = await self._open()
        receipt = await record_package(
            package, log, self._recorded_in, record_id=self._new_id(), principal=order.principal
        )
        entry = msgspec.json.decode(receipt)["entry"]
        return MadeReport(
            report=package.report,
            package=package,
            receipt=receipt,
            place=f"{entry['origin']}#{entry['index']}",
        )

    def _package(self, order: ReportOrder, progress: Progress, created: datetime | None) -> Package:
        sources = self._sources()
        if not sources:
            raise ReportRefused("this site holds no log yet")
        report = build_report(
            order.kind,
            self._site,
            sources,
            order.filters,
            hours=order.hours,
            created=created,
            progress=lambda done: progress("verifying the logs", 0.7 * done / len(sources)),
        )
        progress(f"drawing {len(report.entries)} records", 0.7)
        return make_package(report)

    async def _open(self) -> Log:
        # A command and an API may both have made a report: each holds the log for a moment.
        for _ in range(BUSY_TRIES):
            try:
                return await self._open_log()
            except LogBusy:
                await asyncio.sleep(BUSY_WAIT_S)
        return await self._open_log()


def kind_named(name: str) -> Kind:
    """Return the kind of report called `name`.

    Raises:
        ReportRefused: if there is none.
    """
    if name not in KINDS:
        raise ReportRefused(f"there is no report of that kind; there are {', '.join(KINDS)}")
    return KINDS[name]
