"""The console's application: its routes, and what is answered when something goes wrong."""

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from audit.errors import IndexUnavailable, LogBusy, LogUnavailable, SearchInvalid
from console.assets import PREFIX, Assets
from console.errors import Busy, FormInvalid, StoreError
from console.forms import FormTooLarge
from console.parts import ConsoleParts
from console.routes.emergencies import emergency_routes
from console.routes.models import model_routes
from console.routes.overview import overview_routes
from console.routes.policy import policy_routes
from console.routes.records import record_routes
from console.routes.reports import report_routes
from console.routes.sign_in import sign_in_routes
from console.shield import Shield
from console.views import ViewsFull
from console.web import Visit, Web
from coordinator.problems import Refused

logger = logging.getLogger(__name__)

Handler = Callable[[Request, Exception], Awaitable[Response]]


def build_app(parts: ConsoleParts) -> Shield:
    """Return the console's application."""
    assets = Assets()
    web = Web(parts, assets)

    async def health(_: Request) -> Response:
        """Say whether pages can be served."""
        ready = parts.recorder.writable and parts.keeper.freshness.problem is None
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    app = Starlette(
        routes=[
            *sign_in_routes(web),
            *overview_routes(web),
            *record_routes(web),
            *emergency_routes(web),
            *report_routes(web),
            *policy_routes(web),
            *model_routes(web),
            Route(f"{PREFIX}{{name}}", assets.serve, methods=["GET"]),
            Route("/healthz", health, methods=["GET"]),
        ],
        exception_handlers=_handlers(web),
    )
    # Around all of it: what answers an unforeseen error stands outside Starlette's own middleware.
    return Shield(app, origins=parts.origins)


def _handlers(web: Web) -> dict[type[Exception] | int, Handler]:
    """Return what answers each kind of error; no answer repeats what was sent."""

    async def visit_of(request: Request) -> Visit | None:
        try:
            session = await web.session(request)
        except StoreError:
            return None
        return None if session is None else Visit(request, session)

    def saying(status: int, title: str, detail: str | None = None) -> Handler:
        async def handle(request: Request, error: Exception) -> Response:
            said = str(error) if detail is None else detail
            text = f"{said[:1].upper()}{said[1:].rstrip('.')}."
            response = web.problem(status, title, text, await visit_of(request))
            if status == 503:
                response.headers["Retry-After"] = "2"
            return response

        return handle

    async def refused(request: Request, error: Exception) -> Response:
        """Answer what the desk of reports refuses: too many orders, or a report that is gone."""
        status = error.status if isinstance(error, Refused) else 500
        title = "Busy" if status == 503 else "Not there"
        return await saying(status, title)(request, error)

    async def http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title = {404: "Not found", 405: "Not served this way"}.get(status, "Not served")
        detail = "There is no page at this address."
        return web.problem(status, title, detail, await visit_of(request))

    async def unforeseen(request: Request, error: Exception) -> Response:
        del request
        # The message of an error may quote what was sent; its kind does not.
        logger.error("unforeseen %s", type(error))
        return web.problem(500, "Something went wrong", "The console's log names the kind of error.")

    return {
        FormTooLarge: saying(413, "Too much"),
        FormInvalid: saying(400, "That does not fit"),
        SearchInvalid: saying(400, "That does not fit"),
        ViewsFull: saying(409, "No more room"),
        Busy: saying(503, "Busy"),
        Refused: refused,
        LogBusy: saying(503, "Busy", "another process is writing this log; try again in a moment"),
        LogUnavailable: saying(
            503,
            "Nothing can be shown",
            "the audit log cannot be written, and what is looked at is recorded",
        ),
        IndexUnavailable: saying(503, "The index does not answer"),
        StoreError: saying(503, "The console's database does not answer"),
        HTTPException: http,
        Exception: unforeseen,
    }
