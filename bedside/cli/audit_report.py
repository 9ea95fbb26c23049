"""`bedside audit report`: what officers and auditors are handed."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from audit import AuditError
from audit.records import Outcome
from audit.reports import KINDS, Filters, WorkingHours, write_package
from audit.reports.making import ReportOrder, kind_named
from audit.reports.words import plural
from bedside.cli.audit import sources_of
from bedside.cli.options import ConfigOption, SinceOption, UntilOption, open_site, say
from bedside.errors import BedsideError


def make_report(
    kind: Annotated[str, typer.Argument(help=f"which: {', '.join(KINDS)}")] = "access",
    out: Annotated[Path, typer.Option(help="folder for the zip, PDF, CSV and JSON")] = Path("report"),
    since: SinceOption = None,
    until: UntilOption = None,
    subject: Annotated[str | None, typer.Option(help="only about this subject (identifier)")] = None,
    principal: Annotated[str | None, typer.Option(help="only by this principal")] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="only what ended so")] = None,
    hours: Annotated[str, typer.Option(help="the site's working hours")] = "7-19",
    timezone: Annotated[str, typer.Option(help="the time zone of these hours")] = "UTC",
    config: ConfigOption = None,
) -> None:
    """Make a report over all logs of the site; that it was made is recorded first."""
    site = open_site(config)
    try:
        chosen = kind_named(kind)
        filters = Filters(
            since=since,
            until=until,
            subject=site.pseudonymizer().pseudonym(subject) if subject else None,
            principal=principal,
            outcome=outcome,
        )
        working = WorkingHours.parse(hours, timezone)
        sources_of(site)
        order = ReportOrder(kind=chosen, filters=filters, hours=working)
        made = asyncio.run(site.report_maker().make(order))
        files = write_package(made.package, made.receipt, out)
    except AuditError as error:
        raise BedsideError(f"no report: {error}") from error
    count = plural(len(made.report.entries), "record")
    say(f"{count}: {files.zip}, {files.pdf}, {files.csv}, {files.json}")
