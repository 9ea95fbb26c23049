"""HTTP answers of Bedside's servers, turned into values or typed errors."""

from typing import Any

import aiohttp
import msgspec

from bedside_client.errors import (
    BedsideClientError,
    Refused,
    RequestInvalid,
    TokenRejected,
    Unavailable,
)

ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
_UNAVAILABLE = frozenset({429, 502, 503, 504})


class Problem(msgspec.Struct):
    """A problem document (RFC 9457), as far as the SDK uses it."""

    type: str = ""
    title: str = "the server refused"
    detail: str = ""
    policies: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()


async def read(response: aiohttp.ClientResponse, limit_bytes: int = ANSWER_LIMIT_BYTES) -> bytes:
    """Return the body of a good answer.

    Raises:
        BedsideClientError: the typed error of a problem document, or Unavailable past the limit.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise Unavailable(f"the answer is longer than {limit_bytes} bytes")
    if response.status < 400:
        return bytes(body)
    raise _error(response, bytes(body))


def parse(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        Unavailable: if the server answered something else.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Unavailable("the server's answer is not JSON") from error


def _error(response: aiohttp.ClientResponse, body: bytes) -> BedsideClientError:
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        problem = Problem()
    code = problem.type.rpartition(":")[2]
    detail = problem.detail or problem.title
    if response.status == 401:
        return TokenRejected(detail)
    if response.status == 403:
        return Refused(detail, problem.policies, problem.citations)
    if response.status in _UNAVAILABLE:
        after = response.headers.get("Retry-After", "")
        return Unavailable(detail, float(after) if after.isdigit() else None)
    return RequestInvalid(detail, code)
