"""Emergencies: every use of break-glass that waits for a review, and its sign-off."""

from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from audit.errors import ReviewRefused
from audit.index import Hit, Search, catch_up, search
from audit.index.unreviewed import find_record
from audit.records import ConsoleAction, ReviewRecord, ReviewVerdict
from audit.reviews import open_reviews, review
from console.errors import FormInvalid
from console.forms import one, parse_fields, required
from console.pages.rows import Row, row_of, rows_of
from console.parts import ConsoleParts
from console.permission import Page
from console.recording import turn
from console.web import Form, Visit, Web
from policies import ApiAction

REVIEWS: Final = "reviews"
WAITING_SHOWN: Final = 50
REVIEWED_SHOWN: Final = 20


def emergency_routes(web: Web) -> list[Route]:
    """Return the routes."""
    parts = web.parts

    async def page(visit: Visit) -> Response:
        return await show(visit, signed=await _signed(parts, visit))

    async def show(
        visit: Visit, *, status: int = 200, problem: str | None = None, signed: Row | None = None
    ) -> Response:
        waiting = rows_of(await open_reviews(parts.index, count=WAITING_SHOWN))
        reviewed = await search(parts.index, Search(type="review"), count=REVIEWED_SHOWN)
        await parts.recorder.did(
            visit.session.account, ConsoleAction.OPEN, shown=[row.reference for row in waiting]
        )
        return web.render(
            "emergencies.html",
            visit,
            here=Page.EMERGENCIES,
            status=status,
            waiting=waiting,
            reviewed=[row_of(hit) for hit in reviewed.hits],
            verdicts=tuple(ReviewVerdict),
            problem=problem,
            signed=signed,
            now=datetime.now(UTC),
        )

    async def sign_off(visit: Visit, fields: Form) -> Response:
        reference = required(fields, "record")
        try:
            verdict = ReviewVerdict(required(fields, "verdict"))
        except ValueError as error:
            raise FormInvalid("the field `verdict` holds no value that it may have") from error
        try:
            # As the command line does it: while the log is ours nobody else reviews the same.
            async with turn(parts.open_log, REVIEWS) as log:
                await catch_up(parts.index, parts.published_sources())
                reviewed = await review(
                    parts.index,
                    log,
                    reference=reference,
                    principal=visit.name,
                    verdict=verdict,
                    review_id=uuid4(),
                )
        except ReviewRefused as error:
            said = str(error)
            return await show(visit, status=409, problem=f"{said[:1].upper()}{said[1:]}.")
        await parts.keeper.look()
        position = reviewed.record.rpartition("#")[2]
        return RedirectResponse(f"/emergencies?signed={position}", 303)

    return [
        Route("/emergencies", web.page(ApiAction.AUDIT_REVIEW, page), methods=["GET"]),
        Route("/emergencies", web.form(ApiAction.AUDIT_REVIEW, sign_off), methods=["POST"]),
    ]


async def _signed(parts: ConsoleParts, visit: Visit) -> Row | None:
    """Return the review that the address says was just recorded, if it is one of this officer's own."""
    number = one(parse_fields(visit.request.url.query.encode()), "signed")
    if number is None or not (number.isascii() and number.isdecimal() and len(number) < 19):
        return None
    origin, position = f"{parts.site}/{REVIEWS}", int(number)
    record = await find_record(parts.index, origin, position)
    own = isinstance(record, ReviewRecord) and record.principal == visit.name
    return row_of(Hit(origin=origin, position=position, record=record)) if own and record else None
