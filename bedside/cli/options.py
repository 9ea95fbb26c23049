"""What commands share: the configuration option, and how they speak."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bedside.config import load_config
from bedside.site import Site

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="configuration file [default: ./bedside.toml, if there is one]"
    ),
]


def open_site(config: Path | None) -> Site:
    """Return the site that the configuration describes."""
    return Site(load_config(config))


def say(line: str) -> None:
    """Print one line at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
