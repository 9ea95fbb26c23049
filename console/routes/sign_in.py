"""Signing in and out, and changing one's own password."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from audit.records import ConsoleAction, ConsoleProblem, ConsoleRecord, Outcome
from console.accounts import PASSWORD_LEAST, Account, check_password
from console.errors import AccountError
from console.forms import one, read_form
from console.lockout import Kind
from console.permission import NAVIGATION
from console.web import SIGN_IN, Form, Visit, Web

WRONG: Final = "This name and password do not belong together."
LOCKED: Final = (
    "Too many wrong passwords. Wait {minutes}, or ask whoever runs Bedside to unlock the account."
)


def sign_in_routes(web: Web) -> list[Route]:
    """Return the routes."""
    return _Door(web).routes()


class _Door:
    """Lets officers in and out."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._parts = web.parts

    def routes(self) -> list[Route]:
        """Return where each is."""
        return [
            Route(SIGN_IN, self.ask, methods=["GET"]),
            Route(SIGN_IN, self.sign_in, methods=["POST"]),
            Route("/sign-out", self._web.form(None, self.sign_out), methods=["POST"]),
            Route(
                "/sign-out/everywhere", self._web.form(None, self.sign_out_everywhere), methods=["POST"]
            ),
            Route("/account", self._web.page(None, self.show_account), methods=["GET"]),
            Route("/account", self._web.form(None, self.change_password), methods=["POST"]),
        ]

    async def ask(self, request: Request) -> Response:
        if await self._web.session(request) is not None:
            return RedirectResponse("/", 303)
        return self._web.render(
            "sign_in.html", None, error=None, next=_next(dict(request.query_params))
        )

    async def sign_in(self, request: Request) -> Response:
        fields = await read_form(request)
        name, password = one(fields, "name") or "", (fields.get("password") or [""])[0]
        onward = _next({"next": one(fields, "next") or ""})
        address = _address(request)
        locked = await self._parts.lockout.attempt(name, address)
        if locked is not None:
            return self._locked(onward)
        account = await self._parts.accounts.recognise(name, password)
        if account is None:
            await self._record_failure(name, address)
            return self._web.render("sign_in.html", None, status=401, error=WRONG, next=onward)
        # Recorded before it counts: without a record nobody is let in.
        await self._parts.recorder.did(account, ConsoleAction.SIGN_IN, address=_plain(address))
        await self._parts.lockout.succeed(name, address)
        token = await self._parts.sessions.begin(
            account.name, instead_of=request.cookies.get(self._web.cookie)
        )
        response = RedirectResponse(onward or "/", 303)
        self._set_cookie(response, token)
        return response

    async def _record_failure(self, name: str, address: str) -> None:
        # A name that is no account's may be anything, and is written nowhere.
        known = await self._parts.accounts.find(name)
        locked = await self._parts.lockout.locked(name, address)
        problem = {
            None: ConsoleProblem.SECRET_WRONG,
            Kind.ACCOUNT: ConsoleProblem.ACCOUNT_LOCKED,
            Kind.ADDRESS: ConsoleProblem.ADDRESS_LOCKED,
        }[locked]
        await self._parts.recorder.append(
            ConsoleRecord(
                time=datetime.now(UTC),
                id=uuid4(),
                action=ConsoleAction.SIGN_IN,
                outcome=Outcome.REFUSED,
                problem=problem,
                account=None if known is None else known.name,
                address=_plain(address),
            )
        )

    def _locked(self, onward: str) -> Response:
        minutes = max(1, round(self._parts.settings.lockout_s / 60))
        error = LOCKED.format(minutes="a minute" if minutes == 1 else f"{minutes} minutes")
        response = self._web.render("sign_in.html", None, status=429, error=error, next=onward)
        response.headers["Retry-After"] = str(self._parts.settings.lockout_s)
        return response

    def _set_cookie(self, response: Response, token: str) -> None:
        response.set_cookie(
            self._web.cookie,
            token,
            path="/",
            secure=self._parts.secure,
            httponly=True,
            samesite="strict",
        )

    async def sign_out(self, visit: Visit, _: Form) -> Response:
        await self._parts.recorder.did(visit.session.account, ConsoleAction.SIGN_OUT)
        await self._parts.sessions.end(visit.request.cookies[self._web.cookie])
        return self._outside()

    async def sign_out_everywhere(self, visit: Visit, _: Form) -> Response:
        account = visit.session.account
        # Recorded once for each browser: all of them are signed out.
        for _session in range(await self._parts.sessions.count(account.name)):
            await self._parts.recorder.did(account, ConsoleAction.SIGN_OUT)
        await self._parts.sessions.end_all(account.name)
        return self._outside()

    def _outside(self) -> Response:
        response = RedirectResponse(SIGN_IN, 303)
        response.delete_cookie(
            self._web.cookie, path="/", secure=self._parts.secure, httponly=True, samesite="strict"
        )
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    async def show_account(self, visit: Visit) -> Response:
        return await self._account(visit)

    async def _account(
        self, visit: Visit, *, status: int = 200, wrong: str | None = None, error: str | None = None
    ) -> Response:
        """Return the page; `wrong` is the field that the `error` is about."""
        return self._web.render(
            "account.html",
            visit,
            status=status,
            wrong=wrong,
            error=error,
            least=PASSWORD_LEAST,
            sessions=await self._parts.sessions.count(visit.name),
        )

    async def change_password(self, visit: Visit, fields: Form) -> Response:
        account = visit.session.account
        refused = await self._try_change(account, _address(visit.request), fields)
        if refused is not None:
            return await self._account(visit, status=400, wrong=refused[0], error=refused[1])
        # Every session of the account ended; this browser goes on in another.
        response = RedirectResponse("/account?changed=1", 303)
        self._set_cookie(response, await self._parts.sessions.begin(account.name))
        return response

    async def _try_change(self, account: Account, address: str, fields: Form) -> tuple[str, str] | None:
        """Change the password; return the field that is wrong, and why, if it cannot be."""
        old, new, again = ((fields.get(name) or [""])[0] for name in ("old", "new", "again"))
        if new != again:
            return "again", "The two copies of the new password differ."
        try:
            check_password(account.name, new)
        except AccountError as error:
            return "new", f"{str(error)[0].upper()}{str(error)[1:]}."
        if await self._parts.lockout.attempt(account.name, address) is not None:
            return "old", "Too many wrong passwords; wait a while."
        if await self._parts.accounts.recognise(account.name, old) is None:
            return "old", "Your present password is another one."
        await self._parts.lockout.succeed(account.name, address)
        await self._parts.recorder.append(
            ConsoleRecord(
                time=datetime.now(UTC),
                id=uuid4(),
                action=ConsoleAction.ACCOUNT_CHANGE,
                outcome=Outcome.SERVED,
                principal=account.name,
                account=account.name,
            )
        )
        await self._parts.accounts.change(account.name, password=new)
        return None


def _next(fields: Mapping[str, str]) -> str:
    """Return where somebody wanted to go, if that is a page of the navigation: nowhere else."""
    wanted = fields.get("next", "")
    return wanted if any(entry.path == wanted for entry in NAVIGATION) else ""


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _plain(address: str) -> str | None:
    """Return an address as a record may hold it: without an IPv6 zone, and none that is no address."""
    text = address.partition("%")[0].lower()
    return text if text and set(text) <= set("0123456789abcdef.:") else None
