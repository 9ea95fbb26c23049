"""`bedside audit export`: hand the records on to a SIEM."""

from typing import Annotated

import typer
from rich.table import Table

from audit import AuditError
from bedside.cli.options import ConfigOption, open_site, show
from bedside.errors import BedsideError
from bedside.telemetry import telemetry_of


def export_records(
    status: Annotated[
        bool, typer.Option("--status", help="show how far each destination got, and end")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Export all logs' records to the destinations of [export], at least once, until stopped."""
    site = open_site(config)
    if not status:
        from bedside.exporting import run_export  # noqa: PLC0415 a command pays for its own imports

        with telemetry_of(site) as telemetry:
            run_export(site, telemetry)
        return
    table = Table("destination", "log", "taken", "published", "behind", "refused for good")
    try:
        for state in site.export_states():
            numbers = (state.next, state.published, state.lag, state.refused)
            table.add_row(state.destination, state.log, *map(str, numbers))
    except AuditError as error:
        raise BedsideError(str(error)) from error
    show(table)
