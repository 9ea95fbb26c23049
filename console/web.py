"""From a request to a page: who asks, whether policy lets them, and how what they get is rendered."""

import hmac
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from audit.records import ConsoleAction, ConsoleProblem
from console.assets import Assets
from console.errors import FormInvalid
from console.forms import one, read_form
from console.pages.rows import path_to
from console.parts import ConsoleParts
from console.permission import NAVIGATION, Page
from console.sessions import Session
from console.words import ago, clock, number, plural, short
from policies import ApiAction

TEMPLATES: Final = Path(__file__).parent / "templates"
SIGN_IN: Final = "/sign-in"
# Sent by pages that refresh themselves: they must not keep a session alive for somebody who left.
REFRESH: Final = "bedside-refresh"


class Visit(Struct, frozen=True):
    """Somebody who is signed in, and what they ask."""

    request: Request
    session: Session

    @property
    def name(self) -> str:
        """Who it is."""
        return self.session.account.name

    @property
    def partial(self) -> bool:
        """Whether only a part of a page is wanted."""
        return self.request.headers.get("hx-request") == "true"


Answer = Callable[[Visit], Awaitable[Response]]
Form = dict[str, list[str]]
AnswerForm = Callable[[Visit, Form], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Web:
    """Renders pages, and lets in who may see them."""

    def __init__(self, parts: ConsoleParts, assets: Assets) -> None:
        self.parts = parts
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "number": number,
            "clock": clock,
            "ago": ago,
            "short": short,
            "plural": plural,
            "path_to": path_to,
        }
        self._environment.globals |= {
            "asset": assets.address,
            "site": parts.site,
            "version": version("bedside"),
        }

    @property
    def cookie(self) -> str:
        """What the cookie is called; over TLS its name binds it to this very host (RFC 6265bis)."""
        return "__Host-bedside-console" if self.parts.secure else "bedside-console"

    def page(self, needs: ApiAction | None, answer: Answer) -> Endpoint:
        """Return the endpoint of a page that policy must let its readers see."""

        async def endpoint(request: Request) -> Response:
            session = await self.session(request)
            if session is None:
                return self.to_sign_in(request)
            visit = Visit(request, session)
            refused = await self._refused(visit, needs)
            return await answer(visit) if refused is None else refused

        return endpoint

    def form(self, needs: ApiAction | None, answer: AnswerForm) -> Endpoint:
        """Return the endpoint of a form, which must carry the key of its sender's session."""

        async def endpoint(request: Request) -> Response:
            session = await self.session(request)
            if session is None:
                return self.to_sign_in(request)
            visit = Visit(request, session)
            fields = await read_form(request)
            key = one(fields, "form_key") or ""
            if not hmac.compare_digest(key.encode(), session.form_key.encode()):
                raise FormInvalid("the form is not one of this session; open its page again")
            refused = await self._refused(visit, needs)
            return await answer(visit, fields) if refused is None else refused

        return endpoint

    async def session(self, request: Request) -> Session | None:
        """Return the session that a request belongs to."""
        token = request.cookies.get(self.cookie)
        if not token:
            return None
        active = REFRESH not in request.headers
        return await self.parts.sessions.find(token, active=active)

    def to_sign_in(self, request: Request) -> Response:
        """Send somebody who is not signed in to where they can be; a part of a page sends the whole."""
        if request.headers.get("hx-request") == "true":
            return Response(status_code=204, headers={"HX-Redirect": SIGN_IN})
        path = request.url.path
        known = any(entry.path == path for entry in NAVIGATION) and path != "/"
        return RedirectResponse(f"{SIGN_IN}?next={path}" if known else SIGN_IN, 303)

    async def _refused(self, visit: Visit, needs: ApiAction | None) -> Response | None:
        account = visit.session.account
        if needs is None or self.parts.permissions.may(account.roles, needs):
            return None
        await self.parts.recorder.did(account, ConsoleAction.OPEN, problem=ConsoleProblem.NOT_PERMITTED)
        return self.problem(
            403, "Not for your roles", "No policy permits this to any of your roles.", visit
        )

    def render(
        self,
        template: str,
        visit: Visit | None,
        *,
        here: Page | None = None,
        status: int = 200,
        **shown: Any,  # noqa: ANN401 each template's own
    ) -> HTMLResponse:
        """Return a page, or with `visit.partial` what a template calls its part."""
        parts = self.parts
        account = None if visit is None else visit.session.account

        def may(action: str) -> bool:
            roles = frozenset() if account is None else account.roles
            return parts.permissions.may(roles, ApiAction(action))

        text = self._environment.get_template(template).render(
            visit=visit,
            account=account,
            form_key=None if visit is None else visit.session.form_key,
            pages=parts.permissions.pages(account.roles) if account else [],
            here=here,
            freshness=parts.keeper.freshness,
            may=may,
            **shown,
        )
        return HTMLResponse(text, status)

    def problem(self, status: int, title: str, detail: str, visit: Visit | None = None) -> Response:
        """Return a page that says what is wrong and what to do."""
        return self.render(
            "problem.html", visit, status=status, title=title, detail=detail, code=status
        )
