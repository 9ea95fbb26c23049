"""Problem documents (RFC 9457): one status and title for each problem of the closed set."""

from http import HTTPStatus
from typing import Any, Final

import msgspec

from audit.records import Problem
from secure_gateway.errors import Refusal

MEDIA_TYPE: Final = b"application/problem+json"

_TABLE: Final[dict[Problem, tuple[HTTPStatus, str]]] = {
    Problem.BODY_MALFORMED: (HTTPStatus.BAD_REQUEST, "The body is not a valid request"),
    Problem.BODY_TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    Problem.CONSENT_UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "Consents cannot be read or changed"),
    Problem.DEADLINE_EXCEEDED: (HTTPStatus.GATEWAY_TIMEOUT, "The deadline passed"),
    Problem.DEVICE_OFFLINE: (HTTPStatus.SERVICE_UNAVAILABLE, "The device is not connected"),
    Problem.DEVICE_REFUSED: (HTTPStatus.FORBIDDEN, "The device refused"),
    Problem.ENCODING_UNSUPPORTED: (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The body's encoding is not understood",
    ),
    Problem.EXECUTION_FAILED: (HTTPStatus.BAD_GATEWAY, "The model did not run"),
    Problem.FACTS_INVALID: (HTTPStatus.BAD_REQUEST, "The stated facts are not valid"),
    Problem.INPUT_INVALID: (HTTPStatus.BAD_REQUEST, "The inputs do not fit the model"),
    Problem.INTERNAL: (HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed"),
    Problem.LOG_UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "The audit log cannot be written"),
    Problem.METHOD_NOT_ALLOWED: (HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    Problem.MODEL_NOT_READY: (HTTPStatus.SERVICE_UNAVAILABLE, "The model is not ready"),
    Problem.MODEL_UNKNOWN: (HTTPStatus.NOT_FOUND, "No such model or version"),
    Problem.NODE_UNREACHABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "No permitted node answers"),
    Problem.NOT_FOUND: (HTTPStatus.NOT_FOUND, "Nothing is served at this path"),
    Problem.NOT_SECOND_PERSON: (HTTPStatus.FORBIDDEN, "A second person must review it"),
    Problem.OBLIGATION_UNMET: (HTTPStatus.FORBIDDEN, "What policy obliges to cannot be met"),
    Problem.OVERLOADED: (HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests wait"),
    Problem.POLICY_REFUSED: (HTTPStatus.FORBIDDEN, "Policy refused the request"),
    Problem.RATE_LIMITED: (HTTPStatus.TOO_MANY_REQUESTS, "The caller's limit is reached"),
    Problem.TOKEN_EXPIRED: (HTTPStatus.UNAUTHORIZED, "The token has expired"),
    Problem.TOKEN_INVALID: (HTTPStatus.UNAUTHORIZED, "The token is not valid"),
    Problem.TOKEN_MISSING: (HTTPStatus.UNAUTHORIZED, "A bearer token is needed"),
    Problem.WORK_GONE: (HTTPStatus.GONE, "The result is gone"),
    Problem.WORK_NOT_DONE: (HTTPStatus.CONFLICT, "The work is not done"),
    Problem.WORK_UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "Work cannot be read or changed"),
    Problem.WORK_UNKNOWN: (HTTPStatus.NOT_FOUND, "No such work"),
}


def status_of(problem: Problem) -> int:
    """Return the HTTP status that answers `problem`."""
    return int(_TABLE[problem][0])


def document(refusal: Refusal, *, record: str | None) -> dict[str, Any]:
    """Return the problem document of `refusal`; `record` is `<origin>#<index>` of its log entry."""
    status, title = _TABLE[refusal.problem]
    fields: dict[str, Any] = {
        "type": f"urn:bedside:problem:{refusal.problem}",
        "title": title,
        "status": int(status),
        "detail": refusal.detail,
    }
    if refusal.policies:
        fields["policies"] = refusal.policies
        fields["citations"] = refusal.citations
    if record is not None:
        fields["record"] = record
    return fields


def headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with the document: challenge and retry time where they apply."""
    status, _ = _TABLE[refusal.problem]
    extra = [(b"content-type", MEDIA_TYPE)]
    if status == HTTPStatus.UNAUTHORIZED:
        # RFC 6750 section 3: the error code only where a token was sent.
        missing = refusal.problem is Problem.TOKEN_MISSING
        extra.append((b"www-authenticate", b"Bearer" if missing else b'Bearer error="invalid_token"'))
    if refusal.problem is Problem.ENCODING_UNSUPPORTED:
        # RFC 9110 section 15.5.16: which encodings would have been understood.
        extra.append((b"accept-encoding", b"gzip, deflate"))
    if refusal.allow:
        extra.append((b"allow", ", ".join(refusal.allow).encode()))
    if refusal.retry_after_s is not None:
        extra.append((b"retry-after", str(refusal.retry_after_s).encode()))
    return extra


def encode(fields: dict[str, Any]) -> bytes:
    """Return the JSON bytes of a problem document."""
    return msgspec.json.encode(fields)
