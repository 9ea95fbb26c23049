"""What commands share: the configuration option, and how they speak."""

import sys
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
