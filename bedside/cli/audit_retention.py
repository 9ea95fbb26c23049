"""`bedside audit prune` and `hold`: remove what is past its retention, and keep what is on hold."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from audit import AuditError
from audit.records import HoldScope
from audit.reports.words import plural
from audit.retention import Hold, PrunePlan, Reason
from bedside.cli.audit_index import with_index
from bedside.cli.options import (
    ConfigOption,
    SinceOption,
    TokenOption,
    UntilOption,
    open_site,
    say,
    show,
)
from bedside.errors import BedsideError
from bedside.retention import Retention
from bedside.site import Site
from policies import ApiAction, PolicyError

hold_app = typer.Typer(help="Keep records longer: legal holds.", no_args_is_help=True)

ReferenceArgument = Annotated[
    str, typer.Argument(help="the matter's number, such as LH-2026-0042; it names no person")
]
Names = list[str] | None
T = TypeVar("T")


def prune(
    execute: Annotated[bool, typer.Option("--execute", help="remove it; it cannot be undone")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask again")] = False,
    token: Annotated[
        str | None, typer.Option(envvar="TOKEN", help="bearer token, to execute [env: TOKEN]")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Show which records are past their retention and on no hold; with --execute, remove them."""
    site = open_site(config)
    retention = Retention(site)
    principal = _officer(site, token or "", ApiAction.AUDIT_PRUNE) if execute else None
    try:
        holds = retention.holds()
        plans = retention.plans(holds)
    except AuditError as error:
        raise BedsideError(f"nothing was pruned: {error}") from error
    _show_plans(site, plans, holds)
    going = sum(plan.records for plan in plans)
    if principal is None:
        say(f"{going} records would go; nothing was changed (--execute removes them)")
        return
    if going and not yes:
        typer.confirm(f"This cannot be undone. Remove {going} records for good?", abort=True)
    decisions = _run(retention.decide(principal))
    for decision in decisions:
        say(f"decided [record {decision}]")
    gone = with_index(
        site,
        lambda index: retention.carry_out(index, lambda log: say(f"{log}: its writer takes it up")),
    )
    if not (decisions or gone):
        say("nothing was removed: no record is past its retention, on no hold and in a whole bundle")
        return
    say(f"{gone} records are gone for good; their hashes stay, and every log verifies")
    say("now destroy backups and snapshots of the data folder that are older than this")


@hold_app.command("place")
def place_hold(
    reference: ReferenceArgument,
    token: TokenOption,
    since: SinceOption = None,
    until: UntilOption = None,
    log: Annotated[Names, typer.Option(help="of this log")] = None,
    model: Annotated[Names, typer.Option(help="of this model")] = None,
    principal: Annotated[Names, typer.Option(help="by this principal")] = None,
    subject: Annotated[Names, typer.Option(help="about this subject (identifier)")] = None,
    pseudonym: Annotated[Names, typer.Option(help="about the subject with this pseudonym")] = None,
    config: ConfigOption = None,
) -> None:
    """Keep the records that match everything given, until the hold is released; with nothing, all."""
    site = open_site(config)
    officer = _officer(site, token, ApiAction.AUDIT_HOLD)
    named = site.pseudonymizer().pseudonym
    scope = HoldScope(
        since=since,
        until=until,
        logs=tuple(log or ()),
        models=tuple(model or ()),
        principals=tuple(principal or ()),
        subjects=(*map(named, subject or ()), *(pseudonym or ())),
    )
    where = _run(Retention(site).place(reference, scope, officer))
    say(f"hold {reference} is placed on {_words(scope)} [record {where}]")


@hold_app.command("list")
def list_holds(config: ConfigOption = None) -> None:
    """List the holds in force, oldest first."""
    table = Table("hold", "placed (UTC)", "by", "keeps")
    try:
        holds = Retention(open_site(config)).holds()
    except AuditError as error:
        raise BedsideError(str(error)) from error
    for hold in holds:
        table.add_row(
            hold.reference, f"{hold.placed:%Y-%m-%d %H:%M}", hold.principal, _words(hold.scope)
        )
    show(table)
    say(f"{plural(len(holds), 'hold')} in force")


@hold_app.command("release")
def release_hold(reference: ReferenceArgument, token: TokenOption, config: ConfigOption = None) -> None:
    """Release a hold: what it kept goes with the next prune, if it is past its retention."""
    site = open_site(config)
    officer = _officer(site, token, ApiAction.AUDIT_HOLD)
    where = _run(Retention(site).release(reference, officer))
    say(f"hold {reference} is released [record {where}]")


def _run(work: Coroutine[object, object, T]) -> T:
    try:
        return asyncio.run(work)
    except AuditError as error:
        raise BedsideError(str(error)) from error


def _show_plans(site: Site, plans: Sequence[PrunePlan], holds: Sequence[Hold]) -> None:
    table = Table("log", "begins at", "would begin at", "goes", "up to (UTC)", "what stays, and why")
    for plan in plans:
        newest = f"{plan.newest:%Y-%m-%d}" if plan.newest is not None and plan.records else ""
        table.add_row(
            plan.origin, str(plan.minimum), str(plan.target), str(plan.records), newest, _why(plan)
        )
    show(table)
    days = site.config.audit.retention.days
    in_force = f"{plural(len(holds), 'hold')} in force"
    say(f"records are kept for {days} days, longer where a policy says so; {in_force}")


def _why(plan: PrunePlan) -> str:
    keeps = plan.keeps
    if keeps is None:
        return "nothing is left"
    behind = f"; {plan.behind} bundles behind it wait for it" if plan.behind else ""
    if keeps.reason is Reason.HOLD:
        return f"#{keeps.number} is held by {', '.join(keeps.holds)}{behind}"
    if keeps.reason is Reason.EXPORT:
        return f"#{keeps.number} was not exported yet: `bedside audit export --status`{behind}"
    if keeps.reason is Reason.INCOMPLETE:
        return f"#{keeps.number}: its bundle of 256 is not full yet"
    return f"#{keeps.number} is kept until {keeps.until:%Y-%m-%d}{behind}"


def _words(scope: HoldScope) -> str:
    parts = [
        f"from {scope.since:%Y-%m-%d %H:%M}" if scope.since else "",
        f"before {scope.until:%Y-%m-%d %H:%M}" if scope.until else "",
        *(f"{word} {', '.join(names)}" for word, names in (
            ("log", scope.logs), ("model", scope.models), ("principal", scope.principals)
        ) if names),
        f"subject {', '.join(name[:12] for name in scope.subjects)}" if scope.subjects else "",
    ]  # fmt: skip
    return "; ".join(filter(None, parts)) or "all records"


def _officer(site: Site, token: str, action: ApiAction) -> str:
    try:
        principal = site.token_verifier().verify(token.encode())
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    if not site.engine().authorize(principal.caller, action).allowed:
        raise BedsideError("none of your roles may do this; policy lets compliance officers")
    return principal.id
