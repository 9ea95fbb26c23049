"""`bedside policy explain`: what would be decided of one request, and why."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.cli.policy.check import NOTHING_IN_FORCE
from bedside.errors import BedsideError
from policies import (
    Agreement,
    CallerKind,
    Candidate,
    DataClass,
    Facts,
    PlacementKind,
    PolicyError,
    Purpose,
    Role,
    why,
)
from policies.proofs import Explanation, explain_request


def explain_decision(
    role: Annotated[list[Role], typer.Option(help="the caller's role; repeatable")],
    model: Annotated[str, typer.Option(help="which model")] = "breast-cancer",
    data_class: Annotated[DataClass, typer.Option(help="how close to a person")] = DataClass.PHI,
    jurisdiction: Annotated[str | None, typer.Option(help="the data's legal home")] = None,
    purpose: Annotated[Purpose, typer.Option(help="why")] = Purpose.TREAT,
    node: Annotated[
        list[str] | None,
        typer.Option(help="a node's jurisdiction; repeatable [default: the site's nodes]"),
    ] = None,
    consent: Annotated[bool, typer.Option(help="the person consents")] = False,
    emergency: Annotated[bool, typer.Option(help="an emergency is declared")] = False,
    on_device: Annotated[bool, typer.Option(help="a device holds the person's data")] = False,
    kind: Annotated[CallerKind, typer.Option(help="what kind of caller")] = CallerKind.USER,
    organisation: Annotated[
        str | None, typer.Option(help="whose the caller is [default: the site's]")
    ] = None,
    agreement: Annotated[
        list[Agreement] | None, typer.Option(help="what the nodes' operators signed; repeatable")
    ] = None,
    attested: Annotated[bool, typer.Option(help="the site verified the nodes")] = False,
    on_premises: Annotated[bool, typer.Option(help="the nodes are the site's own")] = True,
    own_device: Annotated[bool, typer.Option(help="that device is the caller itself")] = False,
    draft: Annotated[
        Path | None,
        typer.Option(help="a bundle's file, signed or not, to ask instead of the one in force"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Decide one made-up request, say why and what would change it; nothing is run or recorded."""
    site = open_site(config)
    facts = Facts(
        roles=frozenset(role),
        kind=kind,
        site=site.config.site,
        organisation=organisation or site.config.site,
        model=model,
        jurisdiction=jurisdiction or site.config.jurisdiction,
        data_class=data_class,
        purpose=purpose,
        consent=consent,
        emergency=emergency,
        on_device=on_device or own_device,
        own_device=own_device,
    )
    made_up = [
        Candidate(
            placement=f"node:{n}-{home}",
            kind=PlacementKind.NODE,
            jurisdiction=home,
            on_premises=on_premises,
            agreements=frozenset(agreement or ()),
            attested=attested,
        )
        for n, home in enumerate(node or [site.config.jurisdiction], start=1)
    ]
    configured = [entry.candidate for entry in site.config.gateway.nodes]
    candidates = configured if configured and not node else made_up
    if facts.on_device:
        candidates.append(
            Candidate(
                placement="device:holder",
                kind=PlacementKind.DEVICE,
                jurisdiction=facts.jurisdiction,
                holds_subject=True,
            )
        )
    try:
        bundle, in_force = site.bundles().asked(draft)
        explanation = explain_request(bundle, facts, tuple(candidates))
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    if not in_force:
        say(NOTHING_IN_FORCE)
    table = Table("placement", "decision", "because")
    for verdict in explanation.decision.verdicts:
        table.add_row(verdict.placement, "permit" if verdict.permitted else "refuse", why(verdict))
    show(table)
    say(explanation.sentence)
    _show_facts(explanation)


def _show_facts(explanation: Explanation) -> None:
    say(f"The policies that decided look at {', '.join(explanation.looked_at) or 'nothing'}.")
    if explanation.mattered:
        table = Table("if only this were", "it might run on", "obligations")
        for matter in explanation.mattered:
            table.add_row(
                str(matter.change),
                ", ".join(matter.permitted) or "nothing",
                ", ".join(matter.obligations),
            )
        show(table)
    else:
        say("No other value of any single fact changes where it may run.")
    outcome = "refuse it" if explanation.decision.permitted else "permit it"
    if not explanation.flips:
        say(f"No change of facts would {outcome}.")
    for flip in explanation.flips:
        say(f"Nearest change that would {outcome}: {'; '.join(map(str, flip))}")
