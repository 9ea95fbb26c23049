"""`bedside console`: serve the console, and say who may sign in."""

from typing import Annotated

import typer
from rich.table import Table

from audit.records import ConsoleAction
from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.compose import resolve_secret
from bedside.errors import BedsideError
from bedside.officers import change_accounts, read_accounts
from bedside.telemetry import telemetry_of
from console import AccountError
from console.accounts import NAME, Account, Accounts, check_password
from console.lockout import Lockout
from policies import Role

app = typer.Typer(help="Serve the console for officers, and say who may sign in.", no_args_is_help=True)
user_app = typer.Typer(help="Add, change and list accounts of the console.", no_args_is_help=True)
app.add_typer(user_app, name="user")

NameArgument = Annotated[str, typer.Argument(help="the account's name, as the log will say: c.officer")]
PasswordOption = Annotated[
    str | None,
    typer.Option(
        "--password", help="a reference to the password, file:/path [default: asked for, unseen]"
    ),
]


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Serve the console until it is stopped."""
    from bedside.officers import run_console  # noqa: PLC0415 a command pays for its own imports only

    site = open_site(config)
    with telemetry_of(site) as telemetry:
        run_console(site, telemetry)


@user_app.command("add")
def add_user(
    name: NameArgument,
    role: Annotated[list[Role], typer.Option(help="what they are; repeatable")],
    password: PasswordOption = None,
    config: ConfigOption = None,
) -> None:
    """Add an account; policy says what its roles may open."""
    secret = _password(name, password)

    async def work(accounts: Accounts, _: Lockout) -> None:
        await accounts.add(name, role, secret)

    change_accounts(open_site(config), ConsoleAction.ACCOUNT_ADD, name, work)
    say(f"{name} may sign in as {', '.join(sorted(set(role)))}")


@user_app.command("password")
def set_password(
    name: NameArgument, password: PasswordOption = None, config: ConfigOption = None
) -> None:
    """Set an account's password; whoever is signed in with it no longer is."""
    secret = _password(name, password)

    async def work(accounts: Accounts, lockout: Lockout) -> None:
        await accounts.change(name, password=secret)
        await lockout.unlock(name)

    change_accounts(open_site(config), ConsoleAction.ACCOUNT_CHANGE, name, work)
    say(f"{name} has another password")


@user_app.command("roles")
def set_roles(
    name: NameArgument,
    role: Annotated[list[Role], typer.Option(help="what they are from now on; repeatable")],
    config: ConfigOption = None,
) -> None:
    """Give an account other roles; whoever is signed in with it no longer is."""
    _check_name(name)

    async def work(accounts: Accounts, _: Lockout) -> None:
        await accounts.change(name, roles=role)

    change_accounts(open_site(config), ConsoleAction.ACCOUNT_CHANGE, name, work)
    say(f"{name} is {', '.join(sorted(set(role)))}")


@user_app.command("disable")
def disable(name: NameArgument, config: ConfigOption = None) -> None:
    """Let an account sign in no more; whoever is signed in with it no longer is."""
    _switch(name, config, disabled=True)
    say(f"{name} may not sign in any more")


@user_app.command("enable")
def enable(name: NameArgument, config: ConfigOption = None) -> None:
    """Let a disabled account sign in again."""
    _switch(name, config, disabled=False)
    say(f"{name} may sign in again")


@user_app.command("unlock")
def unlock(name: NameArgument, config: ConfigOption = None) -> None:
    """Forget an account's wrong passwords, so that its owner need not wait."""
    _check_name(name)

    async def work(_: Accounts, lockout: Lockout) -> None:
        await lockout.unlock(name)

    change_accounts(open_site(config), ConsoleAction.ACCOUNT_UNLOCK, name, work)
    say(f"{name} is not locked")


@user_app.command("list")
def list_users(config: ConfigOption = None) -> None:
    """List the accounts."""

    async def work(accounts: Accounts, _: Lockout) -> list[Account]:
        return await accounts.list()

    table = Table("account", "roles", "state")
    for account in read_accounts(open_site(config), work):
        state = "disabled" if account.disabled else "may sign in"
        table.add_row(account.name, ", ".join(sorted(account.roles)), state)
    show(table)


def _switch(name: str, config: ConfigOption, *, disabled: bool) -> None:
    _check_name(name)

    async def work(accounts: Accounts, _: Lockout) -> None:
        await accounts.change(name, disabled=disabled)

    change_accounts(open_site(config), ConsoleAction.ACCOUNT_CHANGE, name, work)


def _password(name: str, reference: str | None) -> str:
    """Return the password that a reference names, or that is typed twice; one that is good enough."""
    _check_name(name)
    secret = (
        resolve_secret(reference)
        if reference is not None
        else str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    )
    try:
        check_password(name, secret)
    except AccountError as error:
        raise BedsideError(str(error)) from error
    return secret


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise BedsideError(
            "an account's name is 1 to 63 lower-case letters, digits, '.', '_', '@' or '-'"
        )
