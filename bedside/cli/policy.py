"""`bedside policy`: what the site decides by, and why."""

from typing import Annotated

import typer
from rich.table import Table

from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.errors import BedsideError
from policies import (
    Candidate,
    DataClass,
    Engine,
    Facts,
    PlacementKind,
    PolicyError,
    Purpose,
    Role,
    explain,
    why,
)

app = typer.Typer(help="Check the policies and ask them why.", no_args_is_help=True)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Validate the site's packs against their schema and show the bundle in force."""
    site = open_site(config)
    try:
        engine = Engine(site.bundle())
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    table = Table("policy", "effect", "title", "source", title=f"bundle v{engine.bundle.version}")
    for text in sorted(engine.texts, key=lambda text: text.id):
        table.add_row(text.id, text.effect, text.title, text.citation)
    show(table)
    say(f"{len(engine.texts)} policies are valid; digest {engine.bundle_digest}")


@app.command("explain")
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
    config: ConfigOption = None,
) -> None:
    """Decide one made-up request and say why; nothing is run or recorded."""
    site = open_site(config)
    facts = Facts(
        roles=frozenset(role),
        model=model,
        jurisdiction=jurisdiction or site.config.jurisdiction,
        data_class=data_class,
        purpose=purpose,
        consent=consent,
        emergency=emergency,
        on_device=on_device,
    )
    homes = node or [entry.jurisdiction for entry in site.config.gateway.nodes]
    candidates = [
        Candidate(placement=f"node:{n}-{home}", kind=PlacementKind.NODE, jurisdiction=home)
        for n, home in enumerate(homes or [site.config.jurisdiction], start=1)
    ]
    if on_device:
        candidates.append(
            Candidate(
                placement="device:holder",
                kind=PlacementKind.DEVICE,
                jurisdiction=facts.jurisdiction,
                holds_subject=True,
            )
        )
    decision = site.engine().decide(facts, tuple(candidates))
    table = Table("placement", "decision", "because")
    for verdict in decision.verdicts:
        table.add_row(verdict.placement, "permit" if verdict.permitted else "refuse", why(verdict))
    show(table)
    say(explain(decision, facts))
