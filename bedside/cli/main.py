"""The command line: one command for each component and task."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bedside.cli import (
    audit,
    audit_erasure,
    audit_export,
    audit_index,
    audit_report,
    audit_retention,
    audit_reviews,
    consent,
    console,
    coordinator,
    models,
    policy,
    token,
    witness,
)
from bedside.cli.options import ConfigOption, open_site
from bedside.errors import BedsideError
from bedside.telemetry import telemetry_of

app = typer.Typer(
    name="bedside",
    help="Serve machine-learning models where the data is allowed to be, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(token.app, name="token")
audit.app.add_typer(audit_index.app, name="index")
audit.app.command("export")(audit_export.export_records)
audit.app.command("report")(audit_report.make_report)
audit.app.command("search")(audit_index.search_records)
audit.app.command("reviews")(audit_reviews.list_reviews)
audit.app.command("erase")(audit_erasure.erase_subject)
audit.app.command("prune")(audit_retention.prune)
audit.app.add_typer(audit_retention.hold_app, name="hold")
audit.app.command("review")(audit_reviews.review_record)
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
app.add_typer(models.app, name="models")
app.add_typer(witness.app, name="witness")
app.add_typer(consent.app, name="consent")
app.add_typer(console.app, name="console")


def main() -> None:
    """Run the command line; an error is one line on stderr and exit status 1."""
    try:
        app()
    except BedsideError as error:
        sys.stderr.write(f"bedside: {error}\n")
        sys.exit(1)
    except OSError as error:
        # A file or folder that the command was pointed at; anything deeper has an error of its own.
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"bedside: {where}{error.strerror or type(error).__name__}\n")
        sys.exit(1)


@app.command()
def up(config: ConfigOption = None) -> None:
    """Start a whole site to stay up: gateway, node, coordinator, console. Ctrl-C stops it."""
    from bedside.up import run_up  # noqa: PLC0415 a command pays for its own imports only

    site = open_site(config)
    with telemetry_of(site) as telemetry:
        run_up(site, telemetry)


@app.command()
def demo(
    state: Annotated[
        Path | None, typer.Option(help="where to leave the run's files [default: a new folder]")
    ] = None,
) -> None:
    """Run the main job end to end with real processes, and check every expectation."""
    from bedside.demo import run_demo  # noqa: PLC0415 likewise

    run_demo(state)


@app.command()
def gateway(config: ConfigOption = None) -> None:
    """Run the gateway: it decides, routes, records and answers."""
    from bedside.serving import run_gateway  # noqa: PLC0415 likewise

    site = open_site(config)
    with telemetry_of(site) as telemetry:
        run_gateway(site, telemetry)


@app.command()
def node(
    listen: Annotated[
        str, typer.Option(help="host:port (port 0 takes a free one) or unix:/path")
    ] = "127.0.0.1:8090",
    secret: Annotated[
        str | None,
        typer.Option(help="only gateways with this secret may call; a reference: file:/path"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run a node: it serves the model repository to gateways."""
    from bedside.serving import run_node  # noqa: PLC0415 likewise

    site = open_site(config)
    with telemetry_of(site) as telemetry:
        run_node(site, listen, secret, telemetry)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def device(context: typer.Context) -> None:
    """Enrol and run a device: the Python SDK as an agent."""
    from bedside_client.__main__ import main as run_device  # noqa: PLC0415 likewise

    raise typer.Exit(run_device(context.args))
