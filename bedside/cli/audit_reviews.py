"""`bedside audit reviews` and `bedside audit review`: emergencies that somebody must look at."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from audit.index import RecordIndex, catch_up
from audit.records import RequestRecord, ReviewVerdict
from audit.reports import LogSource
from audit.reviews import open_reviews, review
from bedside.cli.audit import sources_of
from bedside.cli.audit_index import with_index
from bedside.cli.options import ConfigOption, TokenOption, open_site, say, show
from bedside.errors import BedsideError
from bedside.site import REVIEWS, Site
from policies import ApiAction, PolicyError, Principal
from secure_gateway.ids import new_id


def list_reviews(config: ConfigOption = None) -> None:
    """List the uses of break-glass that nobody has reviewed, oldest first."""
    site = open_site(config)

    async def work(index: RecordIndex) -> None:
        await catch_up(index, sources_of(site))
        table = Table("record", "time (UTC)", "principal", "model", "data", "ran on", "outcome")
        waiting = await open_reviews(index)
        for hit in waiting:
            record = hit.record
            if isinstance(record, RequestRecord):
                table.add_row(
                    f"{hit.origin}#{hit.position}",
                    f"{record.time:%Y-%m-%d %H:%M:%S}",
                    record.principal or "",
                    record.model or "",
                    f"{record.data_class or ''} {record.jurisdiction or ''}".strip(),
                    record.placement or "",
                    record.outcome.value,
                )
        show(table)
        say(f"{len(waiting)} to be reviewed")

    with_index(site, work)


def review_record(
    record: Annotated[str, typer.Argument(help="which: <log>#<number>, as `reviews` shows it")],
    verdict: Annotated[ReviewVerdict, typer.Option(help="what came out")],
    token: TokenOption,
    config: ConfigOption = None,
) -> None:
    """Record that you reviewed a use of break-glass; your token says who you are."""
    site = open_site(config)
    reviewer = _reviewer(site, token)

    async def work(index: RecordIndex) -> None:
        sources: Sequence[LogSource] = sources_of(site)
        log = await site.open_log(REVIEWS)
        try:
            await catch_up(index, sources)
            done = await review(
                index,
                log,
                reference=record,
                principal=reviewer.id,
                verdict=verdict,
                review_id=new_id(),
            )
        finally:
            await log.close()
        say(f"{done.reference} is reviewed: {done.verdict.value} [record {done.record}]")

    with_index(site, work)


def _reviewer(site: Site, token: str) -> Principal:
    try:
        principal = site.token_verifier().verify(token.encode())
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    if not site.engine().authorize(principal.caller, ApiAction.AUDIT_REVIEW).allowed:
        raise BedsideError("none of your roles may review; policy lets compliance officers")
    return principal
