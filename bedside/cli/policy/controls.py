"""`bedside policy controls`: what the law requires, what meets it, and what is open."""

import sys
from typing import Annotated

import typer

from bedside.cli.options import ConfigOption, open_site
from bedside.errors import BedsideError
from policies import PolicyError
from policies.controls import as_page, controls
from policies.pack import SHIPPED

EveryOption = Annotated[
    bool, typer.Option("--all", help="all packs that ship, in place of those that the site uses")
]


def show_controls(
    every: EveryOption = False,
    config: ConfigOption = None,
) -> None:
    """Write the control matrix of the site's packs as a page in Markdown."""
    site = open_site(config)
    try:
        with site.bundles().packs() as root:
            packs = SHIPPED if every else site.config.policy.packs
            sys.stdout.write(as_page(controls(packs, root=root)))
    except PolicyError as error:
        raise BedsideError(str(error)) from error
