"""`bedside policy diff`: which requests another bundle would decide otherwise."""

from pathlib import Path
from typing import Annotated

import typer

from bedside.cli.options import ConfigOption, open_site, say
from bedside.errors import BedsideError
from bedside.site import Site
from policies import Bundle, PolicyError, build_bundle, read_draft
from policies.proofs import Change, changed_data, describe, differences

REGIONS_SHOWN = 10
NOTHING = "No decision changes."


def show_differences(
    draft: Annotated[Path, typer.Argument(help="a bundle's file, signed or not, or a folder of packs")],
    against: Annotated[
        Path | None, typer.Option(help="likewise, to compare with [default: the bundle in force]")
    ] = None,
    policies: Annotated[
        bool, typer.Option(help="count it as a change if other policies decide")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="show all classes of facts")] = False,
    config: ConfigOption = None,
) -> None:
    """Show every class of facts that a draft decides otherwise, what it newly permits first."""
    site = open_site(config)
    try:
        before = site.bundle() if against is None else _read(site, against)
        after = _read(site, draft)
        changes = differences(before, after, policies=policies)
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    for change in changes:
        _show(change, None if every else REGIONS_SHOWN)
    data = changed_data(before, after)
    for line in data:
        say(line)
    total = sum(change.combinations for change in changes)
    if changes or not data:
        say(f"{total:,} combinations of facts are decided otherwise" if changes else NOTHING)


def _read(site: Site, path: Path) -> Bundle:
    if not path.is_dir():
        return read_draft(path.read_bytes())
    active = site.bundle()
    return build_bundle(
        active.packs,
        name=active.name,
        version=active.version + 1,
        models=active.models,
        residency=active.residency,
        root=path,
    )


def _show(change: Change, shown: int | None) -> None:
    kind = "API actions" if change.api else "placements"
    say(f"{change.before} -> {change.after}: {change.combinations:,} combinations ({kind})")
    say(f"  before: {', '.join(change.before_policies) or 'default-deny'}")
    say(f"  after: {', '.join(change.after_policies) or 'default-deny'}")
    for region in change.regions[:shown]:
        say(f"  {describe(region)}")
    left = len(change.regions) - len(change.regions[:shown])
    if left:
        say(f"  and {left} more classes; --all shows them")
