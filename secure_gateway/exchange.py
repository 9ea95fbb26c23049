"""One request on its way through the pipeline: what came in, and what each stage found out."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from audit.records import Action
from inference_node import InferRequest, InferResponse
from policies import Decision, Facts, Principal
from secure_gateway.errors import Refusal


class Claims(Struct, frozen=True, kw_only=True):
    """What a caller states about the data, as it arrived: text, not yet believed or checked.

    REST callers send these as headers, gRPC callers as metadata, `/v1/placements` as JSON.
    """

    subject: str | None = None
    data_class: str | None = None
    jurisdiction: str | None = None
    purpose: str | None = None
    consent: str | None = None
    emergency: str | None = None


Decode = Callable[[], InferRequest]
"""Turns a body into tensors; called only once the caller is known."""


class Call(Struct, frozen=True, kw_only=True):
    """One request, free of the protocol that brought it.

    `authorization` is the header's value, `started_ns` a monotonic time. `on_device` says that the
    calling device holds the data itself.
    """

    action: Action
    authorization: bytes | None
    claims: Claims
    started_ns: int
    model: str | None = None
    version: str | None = None
    on_device: bool = False


class ModelInfo(Struct, frozen=True):
    """The model that a request resolved to: from the site's registry, never from the caller."""

    name: str
    version: str
    digest: str | None


class Exchange:
    """What is known of one request so far; stages fill it from top to bottom.

    `subject` is the raw identifier: it lives here, in memory, for the length of the request.
    """

    __slots__ = (
        "call",
        "decision",
        "facts",
        "holder",
        "id",
        "model",
        "placement",
        "principal",
        "pseudonym",
        "refusal",
        "request",
        "response",
        "subject",
        "time",
    )

    def __init__(self, call: Call, request_id: UUID, time: datetime) -> None:
        self.call = call
        self.id = request_id
        self.time = time
        self.principal: Principal | None = None
        self.subject: str | None = None
        self.pseudonym: str | None = None
        self.holder: str | None = None
        self.request: InferRequest | None = None
        self.model: ModelInfo | None = None
        self.facts: Facts | None = None
        self.decision: Decision | None = None
        self.placement: str | None = None
        self.response: InferResponse | None = None
        self.refusal: Refusal | None = None


class Answer(Struct, frozen=True):
    """What goes back: the exchange as it ended, and where its record stands in the log."""

    exchange: Exchange
    record: str
