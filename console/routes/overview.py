"""The overview."""

import asyncio
from datetime import UTC, datetime

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from console.errors import FormInvalid
from console.forms import one, parse_fields
from console.pages.logs import LogState, log_states
from console.pages.overview import overview
from console.parts import ConsoleParts
from console.period import Period
from console.permission import Page
from console.web import Visit, Web
from policies import ApiAction


def overview_routes(web: Web) -> list[Route]:
    """Return the routes."""
    parts = web.parts

    async def show(visit: Visit) -> Response:
        if not parts.permissions.may(visit.session.account.roles, ApiAction.AUDIT_READ):
            pages = parts.permissions.pages(visit.session.account.roles)
            if pages:
                return RedirectResponse(pages[0].path, 303)
            return web.problem(
                403, "Nothing here for your roles", "No policy lets your roles use this console.", visit
            )
        text = one(parse_fields(visit.request.url.query.encode()), "period")
        try:
            period = Period(text) if text else Period.WEEK
        except ValueError as error:
            raise FormInvalid("the field `period` holds no value that it may have") from error
        now = datetime.now(UTC)
        page = await overview(parts.index, period, await states(parts), now)
        return web.render(
            "overview.html",
            visit,
            here=Page.OVERVIEW,
            page=page,
            now=now,
        )

    return [Route("/", web.page(None, show), methods=["GET"])]


async def states(parts: ConsoleParts) -> list[LogState]:
    """Return the state of every log that published something."""
    sizes = await parts.index.sizes()
    return await asyncio.to_thread(
        lambda: log_states(
            parts.published_sources(),
            sizes,
            witnesses=parts.witnesses,
            quorum=parts.quorum,
        )
    )
