"""`bedside audit index` and `bedside audit search`: find records among millions."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from audit import AuditError
from audit.index import Indexed, RecordIndex, Search, catch_up, check, rebuild, search
from audit.records import RequestRecord
from audit.reports import LogSource
from audit.reports.words import describe, plural
from bedside.cli.audit import sources_of
from bedside.cli.options import ConfigOption, SinceOption, UntilOption, open_site, say, show
from bedside.compose import resolve_secret
from bedside.errors import BedsideError
from bedside.site import Site

T = TypeVar("T")

app = typer.Typer(help="Make, update and check the search index.", no_args_is_help=True)

Step = Callable[[RecordIndex, Sequence[LogSource]], Awaitable[list[Indexed]]]


@app.command("update")
def update_index(config: ConfigOption = None) -> None:
    """Add what the logs published since the last time."""
    _report(open_site(config), catch_up, "indexed")


@app.command("rebuild")
def rebuild_index(config: ConfigOption = None) -> None:
    """Forget the index and make it again from the logs."""
    _report(open_site(config), rebuild, "indexed")


@app.command("check")
def check_index(config: ConfigOption = None) -> None:
    """Verify the logs, then compare each indexed record with its log."""
    _report(open_site(config), check, "the same in log and index")


def search_records(
    since: SinceOption = None,
    until: UntilOption = None,
    subject: Annotated[str | None, typer.Option(help="about this subject (identifier)")] = None,
    principal: Annotated[str | None, typer.Option(help="by this principal")] = None,
    model: Annotated[str | None, typer.Option(help="of this model")] = None,
    outcome: Annotated[str | None, typer.Option(help="served, refused or failed")] = None,
    jurisdiction: Annotated[str | None, typer.Option(help="about data of this jurisdiction")] = None,
    placement: Annotated[str | None, typer.Option(help="run at this place")] = None,
    problem: Annotated[str | None, typer.Option(help="not served for this problem")] = None,
    break_glass: Annotated[bool, typer.Option("--break-glass", help="emergencies only")] = False,
    last: Annotated[int, typer.Option(help="how many, newest first", min=1, max=500)] = 20,
    config: ConfigOption = None,
) -> None:
    """Find records in all of the site's logs, newest first."""
    site = open_site(config)
    wanted = Search(
        since=since,
        until=until,
        subject=site.pseudonymizer().pseudonym(subject) if subject else None,
        principal=principal,
        model=model,
        outcome=outcome,
        jurisdiction=jurisdiction,
        placement=placement,
        problem=problem,
        break_glass=True if break_glass else None,
    )

    async def find(index: RecordIndex) -> None:
        await catch_up(index, sources_of(site))
        page = await search(index, wanted, count=last)
        table = Table("record", "time (UTC)", "event", "principal", "ran on", "outcome", "policies")
        for hit in page.hits:
            record = hit.record
            asked = record if isinstance(record, RequestRecord) else None
            table.add_row(
                f"{hit.origin}#{hit.position}",
                f"{record.time:%Y-%m-%d %H:%M:%S}",
                describe(record),
                getattr(record, "principal", None) or "",
                (asked.placement or "") if asked else "",
                asked.outcome.value if asked else "",
                ", ".join(asked.policies) if asked else "",
            )
        show(table)
        more = "; there are more" if page.after is not None else ""
        say(f"{plural(len(page.hits), 'record')}{more}")

    with_index(site, find)


def _report(site: Site, step: Step, word: str) -> None:
    async def work(index: RecordIndex) -> None:
        for log in await step(index, sources_of(site)):
            added = f" ({log.added} added)" if log.added else ""
            begins = f", from record {log.minimum} on: those before were pruned" if log.minimum else ""
            say(f"{log.origin}: {log.size - log.minimum} records {word}{added}{begins}")

    with_index(site, work)


def with_index(site: Site, work: Callable[[RecordIndex], Awaitable[T]]) -> T:
    """Open the site's index for `work`.

    Raises:
        BedsideError: for whatever goes wrong in `audit`.
    """

    async def run() -> T:
        reference = site.config.audit.index_password
        index = await RecordIndex.open(
            site.index_address,
            password=None if reference is None else resolve_secret(reference),
        )
        try:
            return await work(index)
        finally:
            await index.close()

    try:
        return asyncio.run(run())
    except AuditError as error:
        raise BedsideError(str(error)) from error
