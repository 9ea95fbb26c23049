"""What stands around every page: the headers that confine it, and which requests are let in at all."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# `no-referrer` would also make browsers send `Origin: null` with our own forms.
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
STRICT_TRANSPORT: Final = "max-age=31536000"
SAFE: Final = ("GET", "HEAD")
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


class Shield:
    """Lets in what is sent to this console by its name, and changes only from its own pages.

    A page elsewhere can neither send its forms here nor, by pointing a name of its own at this address
    (DNS rebinding), read what is answered.
    """

    def __init__(self, app: ASGIApp, *, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)
        self._secure = any(origin.startswith("https:") for origin in self._origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on; either answer carries the headers."""

        async def confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if self._secure:
                    headers["Strict-Transport-Security"] = STRICT_TRANSPORT
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, confined)
        else:
            await refusal(scope, receive, confined)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        if headers.get("host", "") not in self._hosts:
            return PlainTextResponse("This console has another name.\n", 421)
        if method in SAFE:
            return None
        if method != "POST":
            return PlainTextResponse(
                "Only GET and POST are served.\n", 405, {"Allow": "GET, HEAD, POST"}
            )
        if headers.get("origin") not in self._origins:
            return PlainTextResponse("This form was not sent from a page of this console.\n", 403)
        return None


def origins_of(url: str, port: int) -> list[str]:
    """Return the origins under which a console is reached: `url`, and all names of the loopback."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return [url]
    return [f"{parts.scheme}://{host}:{port}" for host in LOOPBACK]
