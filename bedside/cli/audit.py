"""`bedside audit`: records, reports, and their verification."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from audit import AuditError, LogBusy, NoteVerifier, VerificationError, WitnessKey
from audit.cosignature import Cosignature
from audit.minimum import read_minimum
from audit.records import RequestRecord, decode
from audit.reports import LogSource, ReportVerification, verify_report
from audit.reports.words import describe
from audit.verify import LogVerification, read_checkpoint, read_entries, verify_log
from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.errors import BedsideError
from bedside.site import SITE_LOGS, Site

NO_LOG: Final = "{} holds no log yet; start the site first"

app = typer.Typer(help="Read the log, make reports, verify both.", no_args_is_help=True)


@app.command()
def verify(
    what: Annotated[
        Path | None,
        typer.Argument(help="a log's folder, or a report's zip or JSON file [default: all logs]"),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="a log's public key (name+hash+key) [default: this site's own keys]"),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="a file of public keys, one a line, as `audit keys` prints")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(help="a witness's public key [default: those that bedside.toml names]"),
    ] = None,
    require: Annotated[
        int | None,
        typer.Option(
            help="how many witnesses must have cosigned each log [default: the quorum in bedside.toml]",
            min=0,
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check signatures, cosignatures, trees and every record; the first that fails is named."""
    texts = [*(key or ()), *(keys.read_text().split() if keys else ())]
    site = None if key or keys else open_site(config)
    try:
        given = [NoteVerifier.parse(text) for text in texts]
        verifiers = given if site is None else [source.verifier for source in sources_of(site)]
        witnesses = [WitnessKey.parse(text) for text in witness or ()]
        if site is not None and not witnesses:
            witnesses = site.witness_keys()
        if what is not None and what.is_file():
            _say_report(verify_report(what, verifiers, witnesses=witnesses, quorum=require or 0))
            return
        for folder, verifier in _logs(site, what, verifiers):
            quorum = _quorum(site) if require is None else require
            log = verify_log(folder, verifier, witnesses=witnesses, quorum=quorum)
            begins = f" from record {log.minimum} on" if log.minimum else ""
            say(f"verified: {log.records} records of {log.origin}{begins}, root {log.root}")
            _say_pruned(site, log)
            _say_cosigned(log.cosignatures, log.cosigned - log.minimum, log.records)
    except AuditError as error:
        raise BedsideError(f"NOT verified: {error}") from error


def _say_pruned(site: Site | None, log: LogVerification) -> None:
    """Say what was pruned; at the site itself its record must say so too.

    Raises:
        VerificationError: if no record decided it.
    """
    if not log.minimum:
        return
    if site is not None and not site.prune_orders().decided(log.origin, log.minimum, log.decision):
        raise VerificationError(f"{log.origin} was pruned below {log.minimum}, which no record decided")
    say(f"  the {log.minimum} records before were pruned, their hashes stay [record {log.decision}]")


def _quorum(site: Site | None) -> int:
    """Return how many witnesses must have seen each log."""
    if site is None or not site.config.audit.witnesses.members:
        return 0
    return site.config.audit.witnesses.quorum


def _say_cosigned(cosignatures: Sequence[Cosignature], seen: int = 0, records: int = 0) -> None:
    so_far = f", all but the newest {records - seen}" if seen < records else ""
    for cosigned in cosignatures:
        when = datetime.fromtimestamp(cosigned.time, UTC)
        say(f"  cosigned by {cosigned.witness.name} at {when:%Y-%m-%d %H:%M:%S} UTC{so_far}")


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
            minimum = read_minimum(source.folder, source.verifier).index
            entries = read_entries(source.folder, checkpoint.size, minimum)
            for index, leaf in list(enumerate(entries, minimum))[-last:]:
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


@app.command("keys")
def print_keys(
    every: Annotated[
        bool, typer.Option("--all", help="also of logs that hold nothing yet: what a witness must know")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Print the public keys that verify the site's logs."""
    site = open_site(config)
    names = {folder.name for folder in site.log_folders()}
    if every:
        names |= {site.config.gateway.replica, *SITE_LOGS}
    if not names:
        raise BedsideError(NO_LOG.format(site.data))
    for name in sorted(names):
        say(str(site.log_verifier(name)))


@app.command("witness")
def bring_to_witnesses(config: ConfigOption = None) -> None:
    """Show the witnesses every log that nobody writes just now; whoever writes one shows it them."""
    site = open_site(config)
    if not site.config.audit.witnesses.members:
        raise BedsideError("bedside.toml names no witnesses: [[audit.witnesses.members]]")

    async def bring(name: str) -> str:
        try:
            log = await site.open_log(name)
        except LogBusy:
            return "its writer shows it"
        await log.close()
        states = ", ".join(f"{witness} {state}" for witness, state in log.witness_states.items())
        return f"{log.size} records: {states}"

    for source in sources_of(site):
        try:
            say(f"{source.verifier.name}: {asyncio.run(bring(source.folder.name))}")
        except AuditError as error:
            raise BedsideError(str(error)) from error


@app.command("verifier")
def print_verifier() -> None:
    """Print an HTML page that verifies reports in a browser, offline: verifier > verify.html."""
    from audit.reports.browser import verifier_page  # noqa: PLC0415 a command pays for its own imports

    sys.stdout.write(verifier_page())


def _say_report(report: ReportVerification) -> None:
    origins = ", ".join(report.origins)
    say(f"verified: {report.entries} records, each proved to stand in {origins}")
    for cosigned in report.cosignatures.values():
        _say_cosigned(cosigned)
    if report.repeated:
        say("verified: what the report shows is what follows from these records")
    else:
        say("not repeated: another version of Bedside made this report, and may word it otherwise")
    if report.receipt is not None:
        say(f"verified: the {report.kind} report is whole, and is the one recorded as {report.receipt}")


def sources_of(site: Site) -> list[LogSource]:
    """Return the site's logs with the keys that verify them.

    Raises:
        BedsideError: if the site has none yet.
    """
    folders = site.log_folders()
    if not folders:
        raise BedsideError(NO_LOG.format(site.data))
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
