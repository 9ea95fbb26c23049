"""Models with their rollouts, and federated jobs with what is left of their budget."""

import asyncio
from datetime import UTC, datetime

from starlette.responses import Response
from starlette.routing import Route

from console.pages.jobs import jobs_page
from console.pages.models import models_page
from console.permission import Page
from console.web import Visit, Web
from coordinator import Release, ReleaseError
from policies import ApiAction


def model_routes(web: Web) -> list[Route]:
    """Return the routes."""
    parts = web.parts

    async def models(visit: Visit) -> Response:
        releases: list[Release] = []
        problem = ""
        try:
            releases = await asyncio.to_thread(parts.releases.list)
        except ReleaseError as error:
            problem = f"{error}."
        page = await models_page(parts.index, releases, datetime.now(UTC))
        return web.render("models.html", visit, here=Page.MODELS, page=page, problem=problem)

    async def jobs(visit: Visit) -> Response:
        page = await jobs_page(parts.index, parts.engine().bundle.numbers, datetime.now(UTC))
        return web.render("jobs.html", visit, here=Page.JOBS, page=page)

    return [
        Route("/models", web.page(ApiAction.RELEASES_READ, models), methods=["GET"]),
        Route("/jobs", web.page(ApiAction.JOBS_READ, jobs), methods=["GET"]),
    ]
