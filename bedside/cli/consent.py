"""`bedside consent`: record what a person agreed to, show it, and withdraw it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from bedside.api import call_api
from bedside.cli.options import ConfigOption, TokenOption, open_site, say, show
from policies import DataClass, Purpose

app = typer.Typer(help="Record, show and withdraw people's consent.", no_args_is_help=True)

# Arguments of a running command can be read by everybody on its machine, its environment by its owner.
SubjectOption = Annotated[
    str,
    typer.Option(
        envvar="SUBJECT",
        prompt=True,
        show_default=False,
        help="the person's identifier; rather in a variable than in the command [env: SUBJECT]",
    ),
]
UrlOption = Annotated[
    str | None, typer.Option(help="the gateway's URL [default: as the configuration says]")
]


@app.command()
def grant(
    subject: SubjectOption,
    token: TokenOption,
    purpose: Annotated[list[Purpose], typer.Option(help="what for; repeatable")],
    days: Annotated[int, typer.Option(help="for how long", min=1, max=36525)],
    model: Annotated[
        list[str] | None, typer.Option(help="only with this model; repeatable [default: all]")
    ] = None,
    data_class: Annotated[
        list[DataClass] | None, typer.Option(help="only this class of data; repeatable [default: all]")
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Record that a person consents."""
    body = {
        "subject": subject,
        "purposes": [item.value for item in purpose],
        "models": model or [],
        "data_classes": [item.value for item in data_class or []],
        "expires": (datetime.now(UTC) + timedelta(days=days)).isoformat(),
    }
    answer = call_api("POST", _consents(url, config), token, body)
    until = f"until {answer['expires'][:10]}"
    say(f"consent {answer['id']} counts {until} [record {answer['record']}]")


@app.command()
def withdraw(
    subject: SubjectOption,
    token: TokenOption,
    consent: Annotated[
        UUID | None, typer.Option(help="only this one, as `list` shows it [default: all]")
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Record that a person withdraws consent; it counts from the next request on."""
    body = {"subject": subject} | ({} if consent is None else {"id": str(consent)})
    answer = call_api("DELETE", _consents(url, config), token, body)
    say(f"{len(answer['withdrawn'])} withdrawn [record {answer['record']}]")


@app.command("list")
def list_consents(
    subject: SubjectOption, token: TokenOption, url: UrlOption = None, config: ConfigOption = None
) -> None:
    """List what was recorded of a person, newest first."""
    headers = {"Bedside-Subject": subject}
    answer = call_api("GET", _consents(url, config), token, headers=headers)
    table = Table("consent", "state", "purposes", "models", "data", "until (UTC)", "recorded by")
    for item in answer["consents"]:
        table.add_row(
            item["id"],
            item["state"],
            ", ".join(item["purposes"]),
            ", ".join(item["models"]) or "all",
            ", ".join(item["data_classes"]) or "all",
            item["expires"][:10],
            item["granted_by"],
        )
    show(table)


def _consents(url: str | None, config: ConfigOption) -> str:
    if url is None:
        gateway = open_site(config).config.gateway
        url = f"http://{gateway.host}:{gateway.port}"
    return f"{url.rstrip('/')}/v1/consents"
