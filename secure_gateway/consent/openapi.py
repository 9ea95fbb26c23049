"""The routes of consent as OpenAPI 3.1 paths, since no framework derives them."""

from typing import Any, Final

from policies import DataClass, Purpose
from secure_gateway.openapi import problems

_TIME: Final = {"type": "string", "format": "date-time"}
_PURPOSES: Final = {"type": "array", "items": {"enum": [purpose.value for purpose in Purpose]}}
_CLASSES: Final = {"type": "array", "items": {"enum": [kind.value for kind in DataClass]}}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 256}
_NAMES: Final = {"type": "array", "items": _NAME}
_SUBJECT: Final = {"name": "bedside-subject", "in": "header", "schema": {"type": "string"}}
_CONSENT: Final = {
    "type": "object",
    "required": ["id", "state", "purposes", "models", "data_classes", "granted", "expires"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "state": {"enum": ["in-force", "not-yet", "expired", "withdrawn"]},
        "purposes": _PURPOSES,
        "models": _NAMES,
        "data_classes": _CLASSES,
        "granted": _TIME,
        "granted_by": {"type": "string"},
        "begins": _TIME,
        "expires": _TIME,
        "withdrawn": _TIME,
        "record": {"type": "string"},
    },
}
_GRANT: Final = {
    "type": "object",
    "required": ["purposes", "expires"],
    "additionalProperties": False,
    "properties": {
        "subject": _NAME,
        "purposes": {**_PURPOSES, "minItems": 1, "maxItems": 16},
        "models": {**_NAMES, "maxItems": 64},
        "data_classes": {**_CLASSES, "maxItems": 16},
        "begins": _TIME,
        "expires": _TIME,
    },
}
_WITHDRAWAL: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"subject": _NAME, "id": {"type": "string", "format": "uuid"}},
}
_WITHDRAWN: Final = {
    "type": "object",
    "required": ["withdrawn", "record"],
    "properties": {
        "withdrawn": {"type": "array", "items": {"type": "string", "format": "uuid"}},
        "record": {"type": "string"},
    },
}
_LIST: Final = {
    "type": "object",
    "required": ["consents"],
    "properties": {"consents": {"type": "array", "items": _CONSENT}},
}
_BEARER: Final[list[dict[str, list[str]]]] = [{"bearer": []}]


def paths() -> dict[str, Any]:
    """Return the members of OpenAPI's `paths` for these routes."""
    return {
        "/v1/consents": {
            "post": _operation("Record a person's consent", "201", _CONSENT, _GRANT),
            "get": _operation("Show what was recorded of a person", "200", _LIST, None),
            "delete": _operation("Withdraw a person's consent", "200", _WITHDRAWN, _WITHDRAWAL),
        }
    }


def _operation(
    summary: str, status: str, answer: dict[str, Any], body: dict[str, Any] | None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "security": _BEARER,
        "parameters": [_SUBJECT],
        "responses": {
            status: {"description": "Done", "content": {"application/json": {"schema": answer}}},
            **problems(400, 401, 403, 404, 413, 429, 500, 503),
        },
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": "purposes" in body["properties"], "content": content}
    return operation
