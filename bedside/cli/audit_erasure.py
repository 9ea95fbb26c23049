"""`bedside audit erase`: destroy a person's pseudonym key, so that no record links to them."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from audit import AuditError
from audit.pseudonyms import PseudonymKey
from audit.records import ErasureRecord, encode
from bedside.cli.options import ConfigOption, TokenOption, open_site, say
from bedside.errors import BedsideError
from bedside.site import ERASURES, Site
from policies import ApiAction, PolicyError
from secure_gateway.ids import new_id


def erase_subject(
    subject: Annotated[
        str, typer.Option(prompt=True, help="the person's identifier; asked for if not given")
    ],
    token: TokenOption,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask: it cannot be undone")] = False,
    config: ConfigOption = None,
) -> None:
    """Destroy a person's pseudonym key: their records stay, and nothing links them to the person."""
    site = open_site(config)
    principal = _officer(site, token)
    if not yes:
        typer.confirm("This cannot be undone. Destroy this person's pseudonym key?", abort=True)
    try:
        record = asyncio.run(_erase(site, subject, principal))
    except AuditError as error:
        raise BedsideError(str(error)) from error
    say(f"the pseudonym key is destroyed [record {record}]")
    say("now destroy backups and snapshots of keys/pseudonym.key, and copies on other machines")


async def _erase(site: Site, subject: str, principal: str) -> str:
    # The log is opened first: what cannot be recorded is not done.
    log = await site.open_log(ERASURES)
    try:
        site.keys.replace_pseudonym_key(
            lambda key: PseudonymKey.from_bytes(key).without(subject).to_bytes()
        )
        done = ErasureRecord(time=datetime.now(UTC), id=new_id(), principal=principal)
        return f"{log.origin}#{await log.append(encode(done))}"
    finally:
        await log.close()


def _officer(site: Site, token: str) -> str:
    try:
        principal = site.token_verifier().verify(token.encode())
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    if not site.engine().authorize(principal.caller, ApiAction.AUDIT_ERASE).allowed:
        raise BedsideError("none of your roles may erase; policy lets compliance officers")
    return principal.id
