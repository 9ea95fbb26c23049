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
    check_packs,
    explain,
    run_cases,
    why,
)

app = typer.Typer(help="Check the policies and ask them why.", no_args_is_help=True)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Validate the site's packs, their layout too, and show the bundle in force."""
    site = open_site(config)
    findings = check_packs(site.config.policy.packs)
    for finding in findings:
        say(f"{finding.path}:{finding.line}: {finding.message}")
    if findings:
        raise BedsideError(f"{len(findings)} findings in the site's packs")
    try:
        engine = Engine(site.bundle())
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    table = Table("policy", "effect", "title", "source", title=f"bundle v{engine.bundle.version}")
    for text in sorted(engine.texts, key=lambda text: text.id):
        table.add_row(text.id, text.effect, text.title, text.citation)
    show(table)
    say(f"{len(engine.texts)} policies are valid; digest {engine.bundle_digest}")


@app.command("test")
def run_tests(config: ConfigOption = None) -> None:
    """Run the packs' own test cases, and name the policies that no case exercised."""
    try:
        run = run_cases(open_site(config).config.policy.packs)
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    for result in run.results:
        for problem in result.problems:
            say(f"{result.pack}: {result.name}: {problem}")
    for text in run.untested:
        say(f"{text.path}:{text.line}: no case exercises {text.id}")
    failed = sum(not result.passed for result in run.results)
    if failed:
        raise BedsideError(f"{failed} of {len(run.results)} cases failed")
    say(f"{len(run.results)} cases passed; {len(run.untested)} policies were not exercised")


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
