"""`bedside coordinator`: the control plane, and its federated jobs."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bedside.api import call_api
from bedside.cli.options import ConfigOption, TokenOption, open_site, say, show
from bedside.errors import BedsideError
from bedside.telemetry import telemetry_of

app = typer.Typer(help="Run the coordinator, enrol devices, run federated jobs.")
job_app = typer.Typer(help="Run federated jobs; only aggregates return.", no_args_is_help=True)
device_app = typer.Typer(help="Enrol and revoke devices.", no_args_is_help=True)
app.add_typer(job_app, name="job")
app.add_typer(device_app, name="devices")

POLL_S = 0.5
UrlOption = Annotated[str, typer.Option(help="the coordinator's URL")]
DEFAULT_URL = "http://127.0.0.1:8081"


@app.callback(invoke_without_command=True)
def coordinator(context: typer.Context, config: ConfigOption = None) -> None:
    """Run the coordinator: devices, releases, federated jobs on Flower."""
    if context.invoked_subcommand is None:
        from bedside.serving import run_coordinator  # noqa: PLC0415 a command pays for its own imports

        site = open_site(config)
        with telemetry_of(site) as telemetry:
            run_coordinator(site, telemetry)


@device_app.command()
def code(
    token: TokenOption,
    jurisdiction: Annotated[str, typer.Option(help="ISO 3166 code of the device's legal home")],
    subjects: Annotated[
        Path | None, typer.Option(help="file with one subject a line, whose data the device holds")
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Print a one-time enrolment code."""
    names = subjects.read_text().split("\n") if subjects else []
    body = {"jurisdiction": jurisdiction, "subjects": [name for name in names if name]}
    say(str(call_api("POST", f"{url}/v1/devices/codes", token, body)["code"]))


@device_app.command("list")
def list_devices(token: TokenOption, url: UrlOption = DEFAULT_URL) -> None:
    """List the enrolled devices."""
    table = Table("device", "jurisdiction", "subjects", "state")
    for device in call_api("GET", f"{url}/v1/devices", token)["items"]:
        state = "revoked" if device["revoked"] else "enrolled"
        table.add_row(device["id"], device["jurisdiction"], str(device["subjects"]), state)
    show(table)


@device_app.command()
def revoke(device: str, token: TokenOption, url: UrlOption = DEFAULT_URL) -> None:
    """Revoke a device; its channel is closed at once."""
    call_api("DELETE", f"{url}/v1/devices/{device}", token)
    say(f"{device} is revoked")


@job_app.command("run")
def run_job(
    token: TokenOption,
    model: Annotated[str, typer.Option(help="which model")],
    kind: Annotated[str, typer.Argument(help="what to do: evaluate")] = "evaluate",
    release: Annotated[str | None, typer.Option(help="which version [default: the newest]")] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Run a federated job and print its result."""
    body = {"kind": kind, "model": model, "version": release}
    job = call_api("POST", f"{url}/v1/federated/jobs", token, body)
    while job["state"] in ("queued", "running"):
        time.sleep(POLL_S)
        job = call_api("GET", f"{url}/v1/federated/jobs/{job['id']}", token)
    if job["state"] != "done":
        raise BedsideError(f"the job {job['state']}: {job['reason']}")
    show(result_table(job))


def result_table(job: dict[str, Any]) -> Table:
    """Return a finished job's metrics as a table."""
    title = (
        f"{job['model']} v{job['version']} over {job['cohort']} devices (k = {job['cohort_minimum']})"
    )
    table = Table("metric", "value", title=title)
    for name, value in job["result"].items():
        shown = (
            "no cases" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        )
        table.add_row(name, shown)
    return table
