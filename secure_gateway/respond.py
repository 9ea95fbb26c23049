"""Stage 7, answer: an HTTP status, headers and body from a finished exchange.

A served answer carries its placement, policies, citations and record in the response's `parameters`
(so that unmodified clients can read them) and in headers.
"""

from functools import lru_cache
from typing import Any

from audit.records import Problem
from inference_node import encode_response
from secure_gateway import problems
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Exchange

Http = tuple[int, list[tuple[bytes, bytes]], bytes]

_PROBLEM = (b"content-type", problems.MEDIA_TYPE)
_JSON = (b"content-type", b"application/json")
_OCTETS = (b"content-type", b"application/octet-stream")


def http(answer: Answer) -> Http:
    """Return the HTTP response for `answer`."""
    exchange = answer.exchange
    if exchange.refusal is not None:
        return refusal(exchange.refusal, record=answer.record)
    response = exchange.response
    if response is None:
        message = "a served inference has a response"
        raise AssertionError(message)
    response.parameters.update(parameters(exchange, answer.record))
    body, header_length = encode_response(response, exchange.request)
    headers = [(b"bedside-record", answer.record.encode())]
    if exchange.placement is not None:
        headers.append((b"bedside-placement", exchange.placement.encode()))
    if header_length is None:
        headers.append(_JSON)
    else:
        headers.append(_OCTETS)
        headers.append((b"inference-header-content-length", b"%d" % header_length))
    return 200, headers, body


def refusal(refusal: Refusal, *, record: str | None) -> Http:
    """Return the problem document for `refusal`, with OIP's `error` member for `/v2` clients."""
    fields = problems.document(refusal, record=record)
    fields["error"] = _sentence(fields)
    headers = problems.headers(refusal)
    if record is not None:
        headers.append((b"bedside-record", record.encode()))
    return fields["status"], headers, problems.encode(fields)


def log_unavailable() -> Http:
    """Return the answer for a request that could not be recorded: 503, and nothing of its result."""
    return refusal(unrecorded(), record=None)


def for_oip(answer: Http) -> Http:
    """Return an answer as clients of the Open Inference Protocol look for it.

    KServe's own reads the `error` of an answer only where its type is plain JSON.
    """
    status, headers, body = answer
    return status, [_JSON if header == _PROBLEM else header for header in headers], body


def unrecorded() -> Refusal:
    """Return the refusal of a request that could not be recorded."""
    return Refusal(
        Problem.LOG_UNAVAILABLE,
        "The audit log cannot be written, so nothing is served; tell the site's operator.",
        retry_after_s=5,
    )


def sentence(refusal: Refusal, *, record: str | None) -> str:
    """Return the whole of a refusal in one text, for clients that show nothing else."""
    return _sentence(problems.document(refusal, record=record))


def parameters(exchange: Exchange, record: str) -> dict[str, Any]:
    """Return what a served answer says about itself."""
    decision = exchange.decision
    fields: dict[str, Any] = {
        "bedside_record": record,
        "bedside_placement": exchange.placement or "",
    }
    if decision is not None:
        fields["bedside_policies"] = _joined(decision.policies)
        fields["bedside_citations"] = _listed(decision.citations)
        if decision.obligations:
            fields["bedside_obligations"] = _joined(decision.obligations)
    if exchange.from_cache:
        fields["bedside_from_cache"] = True
    return fields


@lru_cache(maxsize=1024)
def _listed(citations: tuple[str, ...]) -> str:
    return "; ".join(citations)


@lru_cache(maxsize=1024)
def _joined(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _sentence(fields: dict[str, Any]) -> str:
    # Clients of the protocol show only this text, so it names the policies and the record too.
    named = f" ({', '.join(fields['policies'])})" if "policies" in fields else ""
    recorded = f" [record {fields['record']}]" if "record" in fields else ""
    return f"{fields['title']}{named}: {fields['detail']}{recorded}"
