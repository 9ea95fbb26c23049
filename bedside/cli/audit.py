"""`bedside audit`: records, reports, and their verification."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from audit import AuditError, NoteVerifier
from audit.records import RequestRecord, decode
from audit.reports import Filters, LogSource, build_access_report, verify_report, write_report
from audit.reports.access import describe
from audit.verify import read_checkpoint, read_entries, verify_log
from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.errors import BedsideError
from bedside.site import Site

app = typer.Typer(help="Read the log, make reports, verify both.", no_args_is_help=True)


@app.command()
def verify(
    what: Annotated[
        Path | None,
        typer.Argument(help="a log's folder or a report's JSON file [default: all the site's logs]"),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="a log's public key (name+hash+key) [default: this site's own keys]"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check signatures, trees and every record; the first that fails is named."""
    site = None if key else open_site(config)
    try:
        given = [NoteVerifier.parse(text) for text in key or ()]
        verifiers = given if site is None else [source.verifier for source in sources_of(site)]
        if what is not None and what.is_file():
            report = verify_report(what, verifiers)
            origins = ", ".join(report.origins)
            say(f"verified: {report.entries} records, each proved to stand in {origins}")
            return
        for folder, verifier in _logs(site, what, verifiers):
            log = verify_log(folder, verifier)
            say(f"verified: {log.records} records of {log.origin}, root {log.root}")
    except AuditError as error:
        raise BedsideError(f"NOT verified: {error}") from error


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="folder for the PDF, CSV and JSON")] = Path("report"),
    since: Annotated[datetime | None, typer.Option(help="from this time on (UTC)")] = None,
    until: Annotated[datetime | None, typer.Option(help="before this time (UTC)")] = None,
    subject: Annotated[str | None, typer.Option(help="only about this subject (identifier)")] = None,
    principal: Annotated[str | None, typer.Option(help="only by this principal")] = None,
    config: ConfigOption = None,
) -> None:
    """Make an access report over all logs of the site: who asked what about whom, and why."""
    site = open_site(config)
    filters = Filters(
        since=since.astimezone() if since else None,
        until=until.astimezone() if until else None,
        subject=site.pseudonymizer().pseudonym(subject) if subject else None,
        principal=principal,
    )
    try:
        made = build_access_report(site.config.site, sources_of(site), filters)
        files = write_report(made, out)
    except AuditError as error:
        raise BedsideError(f"no report: {error}") from error
    say(f"{len(made.entries)} records: {files.pdf}, {files.csv}, {files.json}")


@app.command()
def records(
    last: Annotated[int, typer.Option(help="how many, newest last", min=1)] = 20,
    config: ConfigOption = None,
) -> None:
    """Show the newest records of the site's gateways."""
    site = open_site(config)
    table = Table("record", "time", "event", "principal", "model", "ran on", "outcome", "policies")
    try:
        for source in sources_of(site):
            checkpoint = read_checkpoint(source.folder, source.verifier)
            entries = read_entries(source.folder, checkpoint.size)
            for index, leaf in list(enumerate(entries))[-last:]:
                record = decode(leaf)
                asked = record if isinstance(record, RequestRecord) else None
                table.add_row(
                    f"{checkpoint.origin}#{index}",
                    f"{record.time:%H:%M:%S}",
                    describe(record),
                    getattr(record, "principal", None) or "",
                    getattr(record, "model", None) or "",
                    (asked.placement or "") if asked else "",
                    asked.outcome.value if asked else "",
                    ", ".join(asked.policies) if asked else "",
                )
    except AuditError as error:
        raise BedsideError(str(error)) from error
    show(table)


@app.command()
def keys(config: ConfigOption = None) -> None:
    """Print the public keys that verify the site's logs."""
    for source in sources_of(open_site(config)):
        say(str(source.verifier))


def sources_of(site: Site) -> list[LogSource]:
    """Return the site's logs with the keys that verify them.

    Raises:
        BedsideError: if the site has none yet.
    """
    folders = site.log_folders()
    if not folders:
        raise BedsideError(f"{site.data} holds no log yet; start the site first")
    return [LogSource(folder=folder, verifier=site.log_verifier(folder.name)) for folder in folders]


def _logs(
    site: Site | None, what: Path | None, verifiers: list[NoteVerifier]
) -> list[tuple[Path, NoteVerifier]]:
    if what is None:
        if site is None:
            raise BedsideError("with --key, name the log's folder or the report")
        return [(source.folder, source.verifier) for source in sources_of(site)]
    try:
        origin = (what / "checkpoint").read_text().partition("\n")[0]
    except OSError as error:
        raise BedsideError(f"{what} is neither a log's folder nor a report") from error
    named = [verifier for verifier in verifiers if verifier.name == origin]
    if not named:
        raise BedsideError(f"no key was given for the log {origin}")
    return [(what, named[0])]
