"""The control routes of the gateway: placements for devices that run models themselves, receipts.

`POST /v1/placements` takes facts only; its schema has no field for a tensor. `POST /v1/receipts`
writes down what a device did with a placement.
"""

import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from audit import LogUnavailable
from audit.records import Action, Flag, Outcome, Problem, RequestRecord
from policies import ApiAction, Decision, explain
from secure_gateway import openapi, respond
from secure_gateway.consent import openapi as consent_openapi
from secure_gateway.control_limit import ControlLimit
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Call, Claims
from secure_gateway.gateway import Gateway
from secure_gateway.placements import Placed, PlacementTokens
from secure_gateway.version import VERSION
from secure_gateway.work import openapi as work_openapi

SELF = "device:self"
REMEMBERED_RECEIPTS = 65536

_PROBLEMS = {
    404: Problem.NOT_FOUND,
    405: Problem.METHOD_NOT_ALLOWED,
    413: Problem.BODY_TOO_LARGE,
}

Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class PlacementQuestion(BaseModel):
    """Facts about a request that a device would like to run; there is no field for data."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Text
    version: Text | None = None
    subject: Text | None = None
    data_class: Text | None = None
    jurisdiction: Text | None = None
    purpose: Text | None = None
    consent: bool = False
    emergency: bool = False
    on_device: bool = False


class PlacementAnswer(BaseModel):
    """Where the request may run, why, and the token that its receipt must bring back."""

    id: UUID
    placement: str
    model: str
    version: str
    model_digest: str | None
    policies: tuple[str, ...]
    citations: tuple[str, ...]
    obligations: tuple[str, ...]
    explanation: str
    expires: datetime
    token: str
    record: str


class Receipt(BaseModel):
    """What a device did with its placement."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    token: Annotated[str, StringConstraints(min_length=1, max_length=16384)]
    model_digest: Digest
    rows: int = Field(ge=0, le=2**31)
    duration_us: int = Field(ge=0, le=2**53)
    outcome: Literal["served", "failed"]


class ReceiptAnswer(BaseModel):
    """Where the receipt's record stands: `<origin>#<index>`."""

    record: str


class RefusedCall(Exception):
    """Carries a finished, refused answer to the one handler that sends it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("refused")
        self.answer = answer


def build_control(gateway: Gateway) -> FastAPI:
    """Return the application that serves `/v1` of `gateway`."""
    app = FastAPI(title="Bedside gateway", version=VERSION, docs_url=None, redoc_url=None)
    app.add_middleware(ControlLimit)
    tokens = PlacementTokens(gateway.parts.placement_key, gateway.parts.site)
    # Exactly-once within this process: a receipt delivered again answers with its first record.
    delivered: OrderedDict[UUID, str] = OrderedDict()

    @app.post("/v1/placements")
    async def place(question: PlacementQuestion, request: Request) -> PlacementAnswer:
        """Say where a request may run."""
        answer = await gateway.pipeline.serve(_call_of(question, request))
        exchange = answer.exchange
        if exchange.refusal is not None:
            raise RefusedCall(answer)
        decision, facts, model, principal = (
            exchange.decision,
            exchange.facts,
            exchange.model,
            exchange.principal,
        )
        if not (decision and facts and model and principal and exchange.placement):
            message = "a served placement is complete"
            raise AssertionError(message)
        lifetime = timedelta(seconds=gateway.settings.placement_lifetime_s)
        return PlacementAnswer(
            id=exchange.id,
            placement=SELF if exchange.placement == principal.id else exchange.placement,
            model=model.name,
            version=model.version,
            model_digest=model.digest,
            policies=decision.policies,
            citations=decision.citations,
            obligations=decision.obligations,
            explanation=explain(decision, facts),
            expires=datetime.now(UTC) + lifetime,
            token=tokens.issue(exchange),
            record=answer.record,
        )

    @app.post("/v1/receipts")
    async def receive(receipt: Receipt, request: Request) -> ReceiptAnswer:
        """Write down what a device did."""
        call = _bare_call(request, Action.RECEIPT)
        try:
            principal = gateway.authenticator.authenticate(call.authorization)
            call = replace(call, principal=principal)
            _may_send(gateway.parts.engine.authorize(principal.caller, ApiAction.RECEIPTS_SEND))
            placed = tokens.read(receipt.token)
            if placed.principal != principal.id or placed.id != receipt.id:
                raise Refusal(Problem.FACTS_INVALID, "The receipt is for another placement.")
        except Refusal as refusal:
            raise RefusedCall(await gateway.pipeline.refuse(call, refusal)) from refusal
        record = delivered.get(receipt.id)
        if record is None:
            record = await gateway.recorder.append(_record_of(receipt, placed))
            delivered[receipt.id] = record
            if len(delivered) > REMEMBERED_RECEIPTS:
                delivered.popitem(last=False)
        return ReceiptAnswer(record=record)

    @app.exception_handler(RefusedCall)
    async def refused(_: Request, error: RefusedCall) -> Response:
        return _response(respond.http(error.answer))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Only our own field names are repeated; pydantic's messages may quote what was sent.
        known = {*PlacementQuestion.model_fields, *Receipt.model_fields}
        fields = sorted({str(e["loc"][-1]) for e in error.errors() if e["loc"]} & known)
        detail = (
            f"These members do not fit the schema: {', '.join(fields)}."
            if fields
            else "The body is not a JSON object of this route's schema."
        )
        action = Action.RECEIPT if request.url.path.endswith("/receipts") else Action.PLACE
        refusal = Refusal(Problem.BODY_MALFORMED, detail)
        answer = await gateway.pipeline.refuse(_bare_call(request, action), refusal)
        return _response(respond.http(answer))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        problem = _PROBLEMS.get(error.status_code, Problem.BODY_MALFORMED)
        refusal = Refusal(problem, "See /openapi.json for the routes and what they take.")
        answer = await gateway.pipeline.refuse(_bare_call(request, Action.PLACE), refusal)
        return _response(respond.http(answer))

    @app.exception_handler(LogUnavailable)
    async def unrecorded(_: Request, __: LogUnavailable) -> Response:
        return _response(respond.log_unavailable())

    # Filled once here; the framework gives out what it finds filled.
    document = app.openapi()
    openapi.complete(document)
    document["paths"].update(_plain_paths(gateway))
    return app


def _plain_paths(gateway: Gateway) -> dict[str, Any]:
    """Return what the routes of this gateway's own parts say of themselves."""
    paths = {} if gateway.work_api is None else work_openapi.paths()
    return paths if gateway.consent_api is None else paths | consent_openapi.paths()


def _call_of(question: PlacementQuestion, request: Request) -> Call:
    return Call(
        action=Action.PLACE,
        authorization=_authorization(request),
        claims=Claims(
            subject=question.subject,
            data_class=question.data_class,
            jurisdiction=question.jurisdiction,
            purpose=question.purpose,
            consent=str(question.consent).lower(),
            emergency=str(question.emergency).lower(),
        ),
        started_ns=time.monotonic_ns(),
        model=question.model,
        version=question.version,
        on_device=question.on_device,
    )


def _bare_call(request: Request, action: Action) -> Call:
    return Call(
        action=action,
        authorization=_authorization(request),
        claims=Claims(),
        started_ns=time.monotonic_ns(),
    )


def _may_send(decision: Decision) -> None:
    if not decision.allowed:
        raise Refusal(
            Problem.POLICY_REFUSED,
            "None of the caller's roles may send receipts.",
            policies=decision.policies,
            citations=decision.citations,
        )


def _authorization(request: Request) -> bytes | None:
    value = request.headers.get("authorization")
    return None if value is None else value.encode("latin-1")


def _record_of(receipt: Receipt, placed: Placed) -> RequestRecord:
    served = receipt.outcome == "served"
    as_placed = receipt.model_digest == placed.model_digest
    return RequestRecord(
        time=datetime.now(UTC),
        id=placed.id,
        action=Action.RECEIPT,
        outcome=Outcome.SERVED if served else Outcome.FAILED,
        status=200,
        principal=placed.principal,
        roles=placed.roles,
        subject=placed.subject,
        model=placed.model,
        model_version=placed.model_version,
        model_digest=receipt.model_digest,
        data_class=placed.data_class,
        jurisdiction=placed.jurisdiction,
        purpose=placed.purpose,
        consent=placed.consent,
        emergency=placed.emergency,
        placement=placed.placement,
        policies=placed.policies,
        obligations=placed.obligations,
        bundle=placed.bundle,
        flags=(Flag.REPORTED_BY_DEVICE,) if as_placed else (Flag.REPORTED_BY_DEVICE, Flag.OTHER_MODEL),
        rows=receipt.rows,
        duration_us=receipt.duration_us,
    )


def _response(http: respond.Http) -> Response:
    status, headers, body = http
    response = Response(body, status)
    response.raw_headers.extend(headers)
    return response
