"""The routes of asynchronous work as OpenAPI 3.1 paths, since no framework derives them."""

from typing import Any, Final

from audit.records import WorkVerdict
from secure_gateway.openapi import REQUEST, fact_headers, problems
from secure_gateway.work.tables import WorkState

_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
_WORK: Final = {
    "type": "object",
    "required": ["id", "state", "submitted", "expires"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "state": {"enum": [state.value for state in WorkState]},
        "submitted": {"type": "string", "format": "date-time"},
        "expires": {"type": "string", "format": "date-time"},
        "started": {"type": "string", "format": "date-time"},
        "finished": {"type": "string", "format": "date-time"},
        "problem": {"type": "string"},
        "record": {"type": "string"},
    },
}

_REVIEW: Final = {
    "type": "object",
    "required": ["id", "principal", "submitted", "finished", "expires"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "principal": {"type": "string"},
        "submitted": {"type": "string", "format": "date-time"},
        "finished": {"type": "string", "format": "date-time"},
        "expires": {"type": "string", "format": "date-time"},
    },
}
_REVIEWS: Final = {
    "type": "object",
    "required": ["reviews"],
    "properties": {"reviews": {"type": "array", "items": _REVIEW}},
}
_JUDGEMENT: Final = {
    "type": "object",
    "required": ["verdict"],
    "additionalProperties": False,
    "properties": {"verdict": {"enum": [verdict.value for verdict in WorkVerdict]}},
}
_JUDGED: Final = {
    "type": "object",
    "required": ["id", "state", "record"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "state": {"enum": [WorkState.DONE.value, WorkState.REFUSED.value]},
        "record": {"type": "string"},
    },
}


def paths() -> dict[str, Any]:
    """Return the members of OpenAPI's `paths` for these routes."""
    submit = {"post": _submit()}
    versioned = {"post": {**_submit(), "parameters": [_named("version"), *_submit()["parameters"]]}}
    return {
        "/v1/models/{model}/work": submit,
        "/v1/models/{model}/versions/{version}/work": versioned,
        "/v1/work/{id}": {
            "get": _about("Say where work stands", {"200": _document("Where it stands")}, 401, 404),
            "delete": _about("Cancel work", {"200": _document("Cancelled")}, 401, 404, 409, 410),
        },
        "/v1/work/reviews": {
            "get": _about("List what waits for review", {"200": _json(_REVIEWS)}, 401, 403, own=False)
        },
        "/v1/work/{id}/review": {
            "get": _about(
                "Say what a withheld result is about", {"200": _json(_REVIEW)}, 401, 403, 404, 410
            ),
            "post": _about(
                "Release or refuse a withheld result",
                {"200": _json(_JUDGED)},
                *(400, 401, 403, 404, 409, 410, 413),
                body=_JUDGEMENT,
            ),
        },
        "/v1/work/{id}/result": {
            "get": _about(
                "Fetch the result, once",
                {
                    "200": {
                        "description": "The inference response",
                        "content": {"application/json": {}, "application/octet-stream": {}},
                    }
                },
                *(400, 401, 403, 404, 409, 410, 429, 500, 502, 503, 504),
            )
        },
    }


def _submit() -> dict[str, Any]:
    lifetime = {"name": "bedside-work-lifetime", "in": "header", "schema": {"type": "string"}}
    facts = [*fact_headers(), lifetime]
    return {
        "summary": "Submit a request to be run later",
        "security": [{"bearer": []}],
        "parameters": [_named("model"), *facts],
        "requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST}}},
        "responses": {
            "202": _document("Accepted; Location names the work"),
            **problems(400, 401, 403, 404, 413, 415, 429, 500, 503),
        },
    }


def _about(
    summary: str,
    answers: dict[str, Any],
    *refused: int,
    own: bool = True,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "security": [{"bearer": []}],
        "parameters": [_ID] if own else [],
        "responses": {**answers, **problems(*refused, 500, 503)},
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _document(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _WORK}}}


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
