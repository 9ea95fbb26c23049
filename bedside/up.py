"""`bedside up`: a whole embedded site that stays up until it is stopped."""

import asyncio
import json
import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from bedside.children import Child, bedside_command
from bedside.compose import open_gateway
from bedside.config import Config
from bedside.example.data import FEATURES, split
from bedside.example.training import EXAMPLE_MODEL
from bedside.listen import listen_tcp, url_of
from bedside.serving import make_grpc, run_until_stopped, serve_gateway
from bedside.site import Site
from bedside.telemetry import Telemetry
from policies import Role
from secure_gateway import GatewaySettings

DAY_S: Final = 86400
START_TIMEOUT_S: Final = 90


def run_up(site: Site, telemetry: Telemetry) -> None:
    """Start gateway, node, coordinator and console; say how to use them; stop on SIGINT or SIGTERM."""
    if not site.releases().list():
        telemetry.say("no model yet: training and publishing the example (once, a few seconds)")
        from bedside.example.publish import publish_example  # noqa: PLC0415 torch takes seconds

        publish_example(site, split(), site.data / "training")
    site.bundles().settle()
    listener = listen_tcp(site.config.gateway.host, site.config.gateway.port)
    gateway_url = url_of(listener)
    coordinator = _start_coordinator(site, gateway_url)
    console = _start_console(site)
    children = [coordinator, console]
    try:
        coordinator_url, console_url = (
            child.wait_for(lambda text: " ready at " in text, START_TIMEOUT_S).rpartition(" ")[2]
            for child in (coordinator, console)
        )
        config = site.config.model_copy(
            update={
                "coordinator": site.config.coordinator.model_copy(update={"url": coordinator_url}),
                "gateway": _with_grpc(site.config.gateway),
            }
        )
        located = Site(config)

        async def work(stop: asyncio.Event) -> None:
            gateway = await open_gateway(located, telemetry)
            grpc = make_grpc(gateway)

            def ready() -> None:
                if site.config.export.names:
                    children.append(_start_export(site))
                grpc_address = grpc.address if grpc else ""
                at = Addresses(gateway_url, grpc_address, coordinator_url, console_url)
                _greet(located, at, telemetry)

            await serve_gateway(gateway, listener, stop, ready, grpc=grpc)
            telemetry.say("stopped")

        run_until_stopped(work)
    finally:
        for child in reversed(children):
            child.stop()


class Addresses(Struct, frozen=True):
    """Where each part of the site is reached."""

    gateway: str
    grpc: str
    coordinator: str
    console: str


def _with_grpc(settings: GatewaySettings) -> GatewaySettings:
    """Serve gRPC too, on a free port where the configuration names none."""
    if settings.grpc_port is not None:
        return settings
    return settings.model_copy(update={"grpc_port": 0})


def _start_coordinator(site: Site, gateway_url: str) -> Child:
    """Start the coordinator with this process's own configuration, through its environment."""
    return Child(
        "coordinator",
        bedside_command("coordinator"),
        log=site.data / "output" / "coordinator.log",
        environment={**environment_of(site.config), "BEDSIDE_COORDINATOR__GATEWAY_URL": gateway_url},
    )


def _start_export(site: Site) -> Child:
    """Start the export beside everything else: what it waits for holds up no request."""
    return Child(
        "export",
        bedside_command("audit", "export"),
        log=site.data / "output" / "export.log",
        environment=environment_of(site.config),
    )


def _start_console(site: Site) -> Child:
    """Start the console likewise: a process of its own, so that no page holds up a request."""
    return Child(
        "console",
        bedside_command("console", "serve"),
        log=site.data / "output" / "console.log",
        environment=environment_of(site.config),
    )


def environment_of(config: Config) -> dict[str, str]:
    """Return the environment that gives a child process the same configuration."""
    fields = json.loads(config.model_dump_json(exclude_none=True))
    environment = {"BEDSIDE_DATA": str(config.data.expanduser().resolve())}
    for name, value in fields.items():
        if name == "data":
            continue
        environment[f"BEDSIDE_{name.upper()}"] = (
            json.dumps(value) if isinstance(value, dict) else str(value)
        )
    return environment


def _greet(site: Site, at: Addresses, telemetry: Telemetry) -> None:
    issuer = site.token_issuer()
    clinician = issuer.issue("dr.adams", [Role.CLINICIAN], lifetime_s=DAY_S)
    operator = issuer.issue("it.operator", [Role.OPERATOR, Role.ENGINEER], lifetime_s=DAY_S)
    row = [round(float(value), 4) for value in split().test[0].features]
    body = {"inputs": [{"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": row}]}
    telemetry.announce(f"""Bedside is up: site {site.config.site}, {site.config.jurisdiction}
  gateway      {at.gateway}      Open Inference Protocol v2 under /v2, the log under /checkpoint
  gRPC         {at.grpc}             inference.GRPCInferenceService, health and reflection
  coordinator  {at.coordinator}      devices, releases, federated jobs under /v1
  console      {at.console}      for officers; `bedside console user add` makes an account
  data         {_shown(site.data)}

A clinician's token, good for a day:
  export TOKEN={clinician}

Ask the model about a patient (this line works as it is):
  curl -s {at.gateway}/v2/models/{EXAMPLE_MODEL}/infer -H "Authorization: Bearer $TOKEN" \\
    -H 'Bedside-Subject: mrn-0001' -H 'Bedside-Purpose: TREAT' -d '{json.dumps(body)}'

An operator's token, for devices and federated jobs:
  export OPERATOR={operator}

Then: bedside audit records | bedside audit verify | bedside audit report
Ctrl-C stops everything.""")


def _shown(path: Path) -> str:
    here = os.path.relpath(path)
    return str(path) if here.startswith("..") else here
