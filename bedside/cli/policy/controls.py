"""`bedside policy controls`: what the law requires, what meets it, and what is open."""

import sys

from bedside.cli.options import ConfigOption, open_site
from bedside.errors import BedsideError
from policies import PolicyError
from policies.controls import as_page, controls


def show_controls(config: ConfigOption = None) -> None:
    """Write the control matrix of the site's packs as a page in Markdown."""
    site = open_site(config)
    try:
        with site.bundles().packs() as root:
            sys.stdout.write(as_page(controls(site.config.policy.packs, root=root)))
    except PolicyError as error:
        raise BedsideError(str(error)) from error
