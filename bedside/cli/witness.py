"""`bedside witness`: cosign others' logs, as a second party to them."""

import typer
from rich.table import Table

from audit import AuditError
from audit.index.tables import time_of
from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.errors import BedsideError
from bedside.telemetry import telemetry_of

app = typer.Typer(help="Witness others' logs: cosign what extends all that was seen before.")


@app.callback(invoke_without_command=True)
def run(context: typer.Context, config: ConfigOption = None) -> None:
    """Run the witness that [witness] describes."""
    if context.invoked_subcommand is None:
        from bedside.witnessing import run_witness  # noqa: PLC0415 a command pays for its imports only

        site = open_site(config)
        with telemetry_of(site) as telemetry:
            run_witness(site, telemetry)


@app.command()
def key(config: ConfigOption = None) -> None:
    """Print this witness's public key, for those whose logs it witnesses and for verifiers."""
    from bedside.witnessing import witness_key  # noqa: PLC0415 likewise

    try:
        say(str(witness_key(open_site(config))))
    except AuditError as error:
        raise BedsideError(str(error)) from error


@app.command()
def seen(config: ConfigOption = None) -> None:
    """Show what was last cosigned of each log, and what contradicted it."""
    from bedside.witnessing import open_memory  # noqa: PLC0415 likewise

    try:
        memory = open_memory(open_site(config))
    except AuditError as error:
        raise BedsideError(str(error)) from error
    try:
        table = Table("log", "records", "root", "cosigned (UTC)")
        for origin, last in memory.logs():
            when = time_of(last.time * 1_000_000)
            table.add_row(origin, str(last.size), last.root.hex(), f"{when:%Y-%m-%d %H:%M:%S}")
        show(table)
        for found in memory.contradictions():
            say(f"{found.origin} signed two histories of {found.size} records:")
            say(found.held.decode() + found.refused.decode())
    finally:
        memory.close()
