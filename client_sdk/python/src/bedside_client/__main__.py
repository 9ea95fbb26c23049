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
    try:
        if options.command == "enroll":
            state = asyncio.run(enroll(options.coordinator, options.code, options.state))
            _say("enrolled", {"device": state.enrolment.device, "site": state.enrolment.site})
        else:
            asyncio.run(
                run_agent(
                    options.state,
                    models=tuple(options.model),
                    federated=options.federated,
                    event=_say,
                )
            )
    except BedsideClientError as error:
        sys.stderr.write(f"bedside device: {error}\n")
        return 1
    return 0


def _say(name: str, fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(describe_event(name, fields)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
