"""What commands share: the configuration option, and how they speak."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from bedside.config import load_config
from bedside.site import Site

WIDE: Final = 200

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="configuration file [default: ./bedside.toml, if there is one]"
    ),
]


def parse_moment(text: str) -> datetime:
    """Return the moment that an ISO 8601 date or time names; without an offset it is in UTC.

    Raises:
        typer.BadParameter: if it names none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("write a time as 2026-01-31 or 2026-01-31T18:00:00+01:00") from error
    # Never the time zone of the machine: the same command must mean the same records everywhere.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


SinceOption = Annotated[
    datetime | None,
    typer.Option(parser=parse_moment, metavar="TIME", help="records from this time on (UTC)"),
]

UntilOption = Annotated[
    datetime | None,
    typer.Option(parser=parse_moment, metavar="TIME", help="records before this time (UTC)"),
]

TokenOption = Annotated[str, typer.Option(envvar="TOKEN", help="bearer token [env: TOKEN]")]


def open_site(config: Path | None) -> Site:
    """Return the site that the configuration describes."""
    return Site(load_config(config))


def say(line: str) -> None:
    """Print one line at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show(table: Table) -> None:
    """Print a table; where there is no terminal to fit it to, it is as wide as its content needs."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
