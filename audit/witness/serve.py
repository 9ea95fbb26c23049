"""A witness over HTTP: `POST /add-checkpoint` and nothing else."""

import asyncio
import logging
from http import HTTPStatus
from typing import Final

from audit.errors import WitnessUnavailable
from audit.serve import Application, Receive, Scope, Send
from audit.witness.witness import Added, Witness

PATH: Final = "/add-checkpoint"

# 63 proof lines and a checkpoint with a hundred signatures take a sixth of it.
BODY_MAX_BYTES: Final = 64 * 1024

logger = logging.getLogger(__name__)


def serve_witness(witness: Witness) -> Application:
    """Return the ASGI application of `witness`; it takes HTTP requests only."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            await _send(send, Added(HTTPStatus.NOT_FOUND, f"POST {PATH} is all there is\n"))
        elif scope["method"] != "POST":
            await _send(send, Added(HTTPStatus.METHOD_NOT_ALLOWED, "POST\n"), (b"allow", b"POST"))
        else:
            body = await _body(receive)
            if body is None:
                await _send(
                    send,
                    Added(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {BODY_MAX_BYTES} bytes\n"),
                )
                return
            await _send(send, await asyncio.to_thread(_add, witness, body))

    return app


def _add(witness: Witness, body: bytes) -> Added:
    try:
        return witness.add_checkpoint(body)
    except WitnessUnavailable as error:
        logger.error("a checkpoint was not cosigned: %s", error)  # noqa: TRY400 its own words suffice
        return Added(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")


async def _body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        length += len(part)
        if length > BODY_MAX_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send(send: Send, answer: Added, *headers: tuple[bytes, bytes]) -> None:
    body = answer.body.encode()
    named = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": int(answer.status), "headers": named})
    await send({"type": "http.response.body", "body": body})
