"""One request on its way through the pipeline: what came in, and what each stage found out."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from audit import LogUnavailable
from audit.records import Action, ConsentScope, WorkVerdict
from inference_node import InferRequest, InferResponse
from policies import Candidate, Decision, Facts, Principal
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


Arrive = Callable[[], Awaitable[None]]
"""Waits for the body; called only once the caller is known, so that strangers fill no memory."""

Decode = Callable[[], InferRequest]
"""Turns a body that is there into tensors."""

Begin = Callable[[], Awaitable[None]]
"""Takes note that a run is about to begin that cannot be repeated; called before anything is sent."""


class Call(Struct, frozen=True, kw_only=True):
    """One request, free of the protocol that brought it.

    `authorization` is the header's value, `started_ns` a monotonic time. `principal` is who sends it,
    where that had to be known before it could be read; who that is is looked at again. `on_device` says
    that the calling device holds the data itself. Past `deadline`, a `time.monotonic()` time, nobody
    waits for the answer. `wants_text` says that it goes back as JSON, which carries no other bytes, and
    `kept` that it waits sealed until it is fetched, so that it can be withheld. `begin` is awaited
    before the request is sent where a run may leave something behind.
    """

    action: Action
    authorization: bytes | None
    claims: Claims
    started_ns: int
    principal: Principal | None = None
    model: str | None = None
    version: str | None = None
    on_device: bool = False
    deadline: float | None = None
    wants_text: bool = False
    kept: bool = False
    begin: Begin | None = None


class ModelInfo(Struct, frozen=True):
    """The model that a request resolved to: from the site's registry, never from the caller."""

    name: str
    version: str
    digest: str | None


class Exchange:
    """What is known of one request so far; stages fill it from top to bottom.

    `attempted` are placements that were sent the request and did not answer it.

    `changed` are the nodes on which a model was loaded or unloaded. `abandoned` says that the caller
    left before it was answered whole. `responses` is how many a stream gave, once it has ended.

    `shadow` is what a candidate bundle would have decided; nothing but the record looks at it.

    `scope` is what a grant or a withdrawal of consent is about. `withheld` says that the answer waits
    for the review of a second person, and `verdict` is what such a person says of it.

    `subject` is the raw identifier: it lives here, in memory, for the length of the request.
    """

    principal: Principal | None = None
    subject: str | None = None
    pseudonym: str | None = None
    holder: str | None = None
    request: InferRequest | None = None
    model: ModelInfo | None = None
    facts: Facts | None = None
    candidates: tuple[Candidate, ...] = ()
    decision: Decision | None = None
    shadow: Decision | None = None
    placement: str | None = None
    attempted: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    response: InferResponse | None = None
    from_cache: bool = False
    responses: int | None = None
    refusal: Refusal | None = None
    abandoned: bool = False
    scope: ConsentScope | None = None
    withheld: bool = False
    verdict: WorkVerdict | None = None

    def __init__(self, call: Call, request_id: UUID, time: datetime) -> None:
        self.call = call
        self.id = request_id
        self.time = time


class Answer(Struct, frozen=True):
    """What goes back: the exchange as it ended, and where its record stands in the log."""

    exchange: Exchange
    record: str


class Unrecorded(LogUnavailable):
    """Raised when the record of `exchange` cannot be made durable; what was asked for may have run."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__("the request could not be recorded")
        self.exchange = exchange
