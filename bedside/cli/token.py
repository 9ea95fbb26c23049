"""`bedside token`: the embedded issuer."""

from typing import Annotated

import typer

from bedside.cli.options import ConfigOption, open_site, say
from bedside.errors import BedsideError
from policies import Belonging, CallerKind, PolicyError, Role

app = typer.Typer(help="Issue bearer tokens from the site's embedded issuer.", no_args_is_help=True)

HOUR_S = 3600


@app.command()
def issue(
    principal: Annotated[str, typer.Argument(help="who, as the log will say: dr.adams")],
    role: Annotated[list[Role], typer.Option(help="what they are; repeatable")],
    kind: Annotated[
        CallerKind | None, typer.Option(help="what kind of caller [default: by the roles]")
    ] = None,
    caller_site: Annotated[
        str | None, typer.Option("--site", help="where they belong [default: this site]")
    ] = None,
    organisation: Annotated[
        str | None, typer.Option(help="whose they are [default: the site's]")
    ] = None,
    hours: Annotated[float, typer.Option(help="how long the token is good", min=0.01, max=8760)] = 8,
    config: ConfigOption = None,
) -> None:
    """Print a signed token."""
    try:
        token = (
            open_site(config)
            .token_issuer()
            .issue(
                principal,
                role,
                lifetime_s=int(hours * HOUR_S),
                said=Belonging(kind=kind, site=caller_site, organisation=organisation),
            )
        )
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    say(token)
