"""A limit on request bodies, before anything reads them."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.problems import Refused

BODY_LIMIT_BYTES: Final = 32 * 1024 * 1024


class BodyLimit:
    """Refuses bodies larger than 32 MiB, whether or not their length was declared."""

    def __init__(self, app: ASGIApp, limit_bytes: int = BODY_LIMIT_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting what its body brings."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = self._limit_bytes
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > left):
                await self._too_large().response()(scope, receive, send)
                return

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> Refused:
        detail = f"The body is larger than this coordinator's limit of {self._limit_bytes} bytes."
        return Refused(413, "body-too-large", detail)
