"""The whole HTTP interface as one OpenAPI 3.1 document.

The framework derives `/v1/placements` and `/v1/receipts`; the plain routes are described here: the Open
Inference Protocol under `/v2`, and the log. Asynchronous work describes its own.
"""

from typing import Any, Final

from inference_node import CONTENT_TYPE
from secure_gateway.claims import NAMES, TIMEOUT

TENSOR: Final = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string"},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
}
REQUEST: Final = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "minItems": 1, "maxItems": 256, "items": TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
            },
        },
        "parameters": {"type": "object"},
    },
}
PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:bedside:problem:[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string"},
        "policies": {"type": "array", "items": {"type": "string"}},
        "citations": {"type": "array", "items": {"type": "string"}},
        "record": {"type": "string"},
    },
}
_RESPONSE: Final = {
    "type": "object",
    "required": ["model_name", "outputs", "parameters"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {"type": "object", "required": ["bedside_record", "bedside_placement"]},
        "outputs": {"type": "array", "items": TENSOR},
    },
}
_NAMED_TENSORS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        },
    },
}
_METADATA: Final = {
    "type": "object",
    "required": ["name", "versions", "platform", "inputs", "outputs"],
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": _NAMED_TENSORS,
        "outputs": _NAMED_TENSORS,
        "parameters": {"type": "object"},
    },
}
_SERVER: Final = {
    "type": "object",
    "required": ["name", "version", "extensions"],
    "properties": {
        "name": {"const": "bedside"},
        "version": {"type": "string"},
        "extensions": {"type": "array", "items": {"type": "string"}},
    },
}
_NOTHING: Final = {"type": "object"}
_TIMEOUT: Final = {"name": TIMEOUT.decode(), "in": "header", "schema": {"type": "string"}}
_STATISTICS: Final = {"type": "object", "required": ["model_stats"]}
_INDEX: Final = {"type": "array", "items": {"type": "object", "required": ["name"]}}
_BEARER: Final[list[dict[str, list[str]]]] = [{"bearer": []}]
_OPEN: Final[list[dict[str, Any]]] = []
# What clients of the Open Inference Protocol look for an `error` in.
_PLAIN: Final = "application/json"
_INFERENCE_PROBLEMS: Final = (400, 401, 403, 404, 413, 415, 429, 500, 502, 503, 504)
_READING_PROBLEMS: Final = (400, 401, 403, 404, 413, 500, 503)


def complete(document: dict[str, Any]) -> None:
    """Add the plain routes to the framework's `document`, and say of its own what they answer."""
    document["components"].setdefault("securitySchemes", {})["bearer"] = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
    }
    for path in document["paths"].values():
        for operation in path.values():
            # Every error is a problem document; the framework's own form is never sent.
            operation["responses"].pop("422", None)
            operation["responses"].update(problems(400, 401, 403, 404, 413, 429, 500, 503))
            operation["security"] = _BEARER
    document["paths"].update(_paths())


def problems(*statuses: int, kind: str = "application/problem+json") -> dict[str, Any]:
    """Return the responses that are problem documents (RFC 9457), under the media type `kind`."""
    content = {kind: {"schema": PROBLEM}}
    return {
        str(status): {"description": "A problem document", "content": content} for status in statuses
    }


def fact_headers() -> list[dict[str, Any]]:
    """Return the headers that carry facts, as parameters."""
    return [{"name": name.decode(), "in": "header", "schema": {"type": "string"}} for name in NAMES]


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2": {"get": _reading("Say what this server is", _SERVER, open_to_all=True)},
        "/v2/health/live": {"get": _reading("Say whether it runs", _NOTHING, open_to_all=True)},
        "/v2/health/ready": {
            "get": _reading("Say whether it can serve", _NOTHING, open_to_all=True, unready=_NOTHING)
        },
        "/checkpoint": {"get": _log("The signed head of the log", "text/plain; charset=utf-8")},
        "/tile/{level}/{number}": {
            "get": _log("A tile of the log's tree", "application/octet-stream", "level", "number")
        },
        "/tile/entries/{number}": {
            "get": _log("A bundle of records", "application/octet-stream", "number")
        },
        "/metrics": {
            "get": {
                "summary": "What Prometheus scrapes",
                "security": _BEARER,
                "responses": {
                    "200": {"description": "Metrics", "content": {CONTENT_TYPE.decode(): {}}},
                    **problems(401, 403, 500, 503),
                },
            }
        },
        "/openapi.json": {"get": _reading("This document", _NOTHING, open_to_all=True)},
    }
    for prefix, names in (("", ("model",)), ("/versions/{version}", ("model", "version"))):
        base = f"/v2/models/{{model}}{prefix}"
        parameters = [_named(name) for name in names]
        paths[base] = {"get": _reading("What a model takes and gives", _METADATA, parameters)}
        paths[f"{base}/ready"] = {"get": _reading("Whether a model is ready", _NOTHING, parameters)}
        paths[f"{base}/config"] = {"get": _reading("Its configuration", _NOTHING, parameters)}
        paths[f"{base}/stats"] = {"get": _reading("What it did", _STATISTICS, parameters)}
        paths[f"{base}/infer"] = {"post": _inference(parameters)}
        paths[f"{base}/infer_stream"] = {"post": _stream(parameters)}
    paths["/v2/models/stats"] = {"get": _reading("What all models did", _STATISTICS)}
    paths["/v2/repository/index"] = {"post": _change("What the nodes have", _INDEX, [])}
    for change in ("load", "unload"):
        paths[f"/v2/repository/models/{{model}}/{change}"] = {
            "post": _change(f"Have every node {change} a model", _NOTHING, [_named("model")])
        }
    return paths


def _inference(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "summary": "Run a model where policy permits",
        "security": _BEARER,
        "parameters": [*parameters, *fact_headers(), _TIMEOUT],
        "requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST}}},
        "responses": {
            "200": {
                "description": "The answer; its tensors follow in binary where that was asked for",
                "content": {
                    "application/json": {"schema": _RESPONSE},
                    "application/octet-stream": {},
                },
            },
            **problems(*_INFERENCE_PROBLEMS, kind=_PLAIN),
        },
    }


def _stream(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    operation = _inference(parameters)
    operation["summary"] = "Run a model of many responses where policy permits"
    operation["responses"]["200"] = {
        "description": "Server-sent events: a response each, then `end` or `error`",
        "content": {"text/event-stream": {}},
    }
    return operation


def _change(summary: str, schema: dict[str, Any], parameters: list[dict[str, Any]]) -> dict[str, Any]:
    asked = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        **_reading(summary, schema, parameters),
        "requestBody": {"content": {_PLAIN: {"schema": asked}}},
    }


def _reading(
    summary: str,
    schema: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
    *,
    open_to_all: bool = False,
    unready: dict[str, Any] | None = None,
) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": _json("Done", schema)}
    if unready is not None:
        responses["503"] = _json("Not now", unready)
    if not open_to_all:
        responses.update(problems(*_READING_PROBLEMS, kind=_PLAIN))
    return {
        "summary": summary,
        "security": _OPEN if open_to_all else _BEARER,
        "parameters": parameters or [],
        "responses": responses,
    }


def _log(summary: str, kind: str, *names: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": _OPEN,
        "parameters": [_named(name) for name in names],
        "responses": {
            "200": {"description": "As C2SP tlog-tiles has it", "content": {kind: {}}},
            "404": {"description": "No such tile", "content": {"text/plain; charset=utf-8": {}}},
        },
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
