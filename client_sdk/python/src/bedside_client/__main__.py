"""`python -m bedside_client`: enrol a device, and run its agent."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bedside_client.agent import describe_event, run_agent
from bedside_client.enrolment import enroll
from bedside_client.errors import BedsideClientError
from bedside_client.output import Output, own_output, place_of


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bedside device", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    enrolling = commands.add_parser("enroll", help="turn a one-time code into an enrolled device")
    enrolling.add_argument("--coordinator", required=True, help="the coordinator's URL")
    enrolling.add_argument("--code", required=True, help="the one-time code from the clinic")
    enrolling.add_argument("--state", required=True, type=Path, help="the device's state folder")
    running = commands.add_parser("run", help="keep the device reachable until stopped")
    running.add_argument("--state", required=True, type=Path, help="the device's state folder")
    running.add_argument("--model", action="append", default=[], help="a model to hold; repeatable")
    running.add_argument("--federated", action="store_true", help="take part in federated jobs")
    options = parser.parse_args(arguments)
    with own_output() as output:
        return _run(options, output)


def _run(options: argparse.Namespace, output: Output) -> int:
    def event(name: str, fields: dict[str, Any]) -> None:
        output.event(json.dumps(describe_event(name, fields)))

    try:
        if options.command == "enroll":
            state = asyncio.run(enroll(options.coordinator, options.code, options.state))
            event("enrolled", {"device": state.enrolment.device, "site": state.enrolment.site})
        else:
            asyncio.run(
                run_agent(
                    options.state,
                    models=tuple(options.model),
                    federated=options.federated,
                    event=event,
                )
            )
    except BedsideClientError as error:
        output.report(f"bedside device: {error}")
        return 1
    except Exception as error:  # noqa: BLE001 the interpreter would write its message
        output.report(f"bedside device: unforeseen {place_of(error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
