"""`bedside policy replay` and `shadow`: what another bundle would have decided, and what it does."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from audit import AuditError
from audit.records import PolicyStep
from bedside.cli.audit import sources_of
from bedside.cli.options import ConfigOption, SinceOption, UntilOption, open_site, say, show
from bedside.errors import BedsideError
from bedside.site import Site
from coordinator import PolicyRefused
from coordinator.policy.recorded import Period, ReplayRun, replay_logs, report_shadow
from policies import Bundle, PolicyError, read_draft

shadow_app = typer.Typer(
    help="Let a candidate decide beside what is in force, without effect.", no_args_is_help=True
)


def replay(
    file: Annotated[
        Path | None, typer.Argument(help="the bundle's file [default: what is in force]")
    ] = None,
    version: Annotated[int | None, typer.Option(help="a published version instead", min=1)] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
) -> None:
    """Decide recorded requests again under another bundle, from the log's metadata alone."""
    site = open_site(config)
    try:
        run = replay_logs(
            sources_of(site), _chosen(site, file, version), Period(since=since, until=until)
        )
    except (AuditError, PolicyError) as error:
        raise BedsideError(str(error)) from error
    _show_replay(run)
    if run.found.own != run.found.reproduced:
        raise BedsideError(
            f"{run.found.own - run.found.reproduced} decisions that this very bundle made are not what "
            f"was recorded, first {run.found.contradicted[0]}"
        )


@shadow_app.command("start")
def start_shadow(
    file: Annotated[Path, typer.Argument(help="the candidate's file, signed by one approver or more")],
    config: ConfigOption = None,
) -> None:
    """Let a candidate decide beside what is in force; only differences are recorded."""
    site = open_site(config)
    try:
        bundle = asyncio.run(site.policy_desk().start_shadow(file.read_bytes()))
    except (PolicyRefused, AuditError) as error:
        raise BedsideError(f"refused: {error}") from error
    say(f"version {bundle.version} decides in the shadow, digest {bundle.digest()}")


@shadow_app.command("stop")
def stop_shadow(config: ConfigOption = None) -> None:
    """Let no candidate decide any more; what was recorded stays."""
    site = open_site(config)
    try:
        bundle = asyncio.run(site.policy_desk().stop_shadow())
    except (PolicyRefused, AuditError) as error:
        raise BedsideError(f"refused: {error}") from error
    say(f"version {bundle.version} decides in the shadow no more")


@shadow_app.command("report")
def report(since: SinceOption = None, until: UntilOption = None, config: ConfigOption = None) -> None:
    """Say what the candidate, or the last one, would have decided otherwise."""
    site = open_site(config)
    try:
        steps = site.policy_desk().ledger.read()
        started = [step for step in steps if step.step is PolicyStep.SHADOW_START and not step.problem]
        if not started or started[-1].bundle is None:
            raise BedsideError("no candidate ever decided in the shadow here")
        period = Period(since=since, until=until)
        if period.since is None:
            period = Period(since=started[-1].time, until=period.until)
        found = report_shadow(sources_of(site), started[-1].bundle, period)
    except AuditError as error:
        raise BedsideError(str(error)) from error
    table = Table("it would have", "requests", "for example")
    for change, count in found.counts.items():
        table.add_row(change, str(count), ", ".join(found.examples[change]))
    show(table)
    say(
        f"{found.differing} of {found.decided} decisions since {period.since:%Y-%m-%d %H:%M} UTC would "
        f"have been others under version {started[-1].version}"
    )


def _show_replay(run: ReplayRun) -> None:
    found = run.found
    table = Table("would have been", "requests", "for example", "decided by", "would be by")
    for change, count in sorted(found.counts.items()):
        for number, example in enumerate(found.examples[change]):
            first = (change.value, str(count)) if number == 0 else ("", "")
            table.add_row(
                *first, example.record, ", ".join(example.policies), ", ".join(example.would_be)
            )
    show(table)
    for reason, count in sorted(run.not_replayable.items()):
        say(f"{count} decisions cannot be repeated: {reason.value}")
    say(
        f"{found.decided} decisions under version {run.version}: {found.unchanged} unchanged; "
        f"{found.reproduced} of {found.own} that it made itself come out as recorded"
    )


def _chosen(site: Site, file: Path | None, version: int | None) -> Bundle:
    if file is not None and version is not None:
        raise BedsideError("name a file or a version, not both")
    if version is not None:
        file = site.bundles().folder.published(version)
        if not file.is_file():
            raise BedsideError(f"version {version} was never published here")
    return site.bundle() if file is None else read_draft(file.read_bytes())
