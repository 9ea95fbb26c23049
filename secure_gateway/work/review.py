"""The review of withheld results by a second person.

    GET  /v1/work/reviews        what waits for review
    GET  /v1/work/<id>/review    what one of them is about: metadata of its run, nothing of its content
    POST /v1/work/<id>/review    {"verdict": "release"} or {"verdict": "refuse"}

Policy says who may see what waits (`work.review`), and who may judge it (`work.judge`): nobody their
own. A verdict is durable in the log before it counts. Released, a result can be fetched once by whoever
submitted it; refused, it is erased.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from audit.records import Problem, RequestRecord, WorkVerdict
from policies import ApiAction, Engine, Principal
from secure_gateway import respond
from secure_gateway.asgi import Receive, read_body
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Call, Exchange, ModelInfo
from secure_gateway.pipeline import Pipeline
from secure_gateway.sealing import SealBroken
from secure_gateway.work.errors import WorkStoreError, unavailable
from secure_gateway.work.store import WorkStore
from secure_gateway.work.tables import Work, WorkState

BODY_LIMIT_BYTES: Final = 4096

JSON: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
)


class Review(Enum):
    """What a reviewer asks for."""

    LIST = "list"
    SHOW = "show"
    JUDGE = "judge"


Alone = Callable[[UUID], AbstractContextManager[None]]
"""Lets one caller at a time end a piece of work."""


class Judgement(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a verdict."""

    verdict: WorkVerdict


class WorkReviews:
    """Serves the routes above for callers that are authenticated."""

    def __init__(self, store: WorkStore, engine: Engine, pipeline: Pipeline, alone: Alone) -> None:
        self._store = store
        self._engine = engine
        self._pipeline = pipeline
        self._alone = alone

    async def answer(
        self, asked: Review, principal: Principal, call: Call, work: UUID | None, receive: Receive
    ) -> respond.Http:
        """Answer one request.

        Raises:
            Refusal: if the work ended meanwhile.
            ClientGone: if the caller hung up before its body was read.
            LogUnavailable: if the record cannot be made durable.
            WorkStoreError: if the database could not be used once the verdict was recorded.
        """
        if asked is Review.LIST:
            return await self._list(principal, call)
        if asked is Review.SHOW:
            return await self._show(principal, call, work)
        if work is None:
            raise _unknown()
        with ExitStack() as held:
            return await self._judge(principal, call, work, receive, held)

    async def _list(self, principal: Principal, call: Call) -> respond.Http:
        found: list[Work] = []

        async def look(_: Exchange) -> None:
            found.extend(await self._store.in_review())

        answer = await self._permitted(principal, call, look)
        if answer.exchange.refusal is not None:
            return respond.http(answer)
        document = {"reviews": [_summary(work) for work in found]}
        return 200, _headers(answer.record), msgspec.json.encode(document)

    async def _show(self, principal: Principal, call: Call, identifier: UUID | None) -> respond.Http:
        found: list[tuple[Work, RequestRecord]] = []

        async def look(exchange: Exchange) -> None:
            work = await self._waiting(identifier)
            found.append((work, await self._about(exchange, work)))

        answer = await self._permitted(principal, call, look)
        if answer.exchange.refusal is not None:
            return respond.http(answer)
        ((work, run),) = found
        return 200, _headers(answer.record), msgspec.json.encode(_summary(work) | _particulars(run))

    async def _judge(
        self, principal: Principal, call: Call, identifier: UUID, receive: Receive, held: ExitStack
    ) -> respond.Http:
        found: list[tuple[Work, WorkVerdict]] = []

        async def judge(exchange: Exchange) -> None:
            verdict = await _verdict(receive)
            # Not before: nobody waits for a slow caller, or for one who may not judge.
            held.enter_context(self._alone(identifier))
            work = await self._waiting(identifier)
            own = work.principal == principal.id
            decision = self._engine.authorize(principal.caller, ApiAction.WORK_JUDGE, own=own)
            exchange.decision = decision
            if not decision.allowed:
                raise Refusal(
                    Problem.NOT_SECOND_PERSON if own else Problem.POLICY_REFUSED,
                    "Who submitted the work does not review it; somebody else must.",
                    policies=decision.policies,
                    citations=decision.citations,
                )
            await self._about(exchange, work)
            exchange.verdict = verdict
            found.append((work, verdict))

        answer = await self._permitted(principal, call, judge)
        if answer.exchange.refusal is not None:
            return respond.http(answer)
        ((work, verdict),) = found
        released = verdict is WorkVerdict.RELEASE
        ended = await (self._store.release(work) if released else self._store.refuse(work))
        if not ended:
            raise Refusal(Problem.WORK_GONE, "The work ended meanwhile; nothing of it is kept.")
        state = WorkState.DONE if released else WorkState.REFUSED
        document = {"id": work.id, "state": state, "record": answer.record}
        return 200, _headers(answer.record), msgspec.json.encode(document)

    async def _permitted(
        self, principal: Principal, call: Call, step: Callable[[Exchange], Awaitable[None]]
    ) -> Answer:
        """Authorize and record a request of a reviewer, which `step` does."""

        async def tried(exchange: Exchange) -> None:
            try:
                await step(exchange)
            except WorkStoreError as error:
                raise unavailable() from error

        return await self._pipeline.authorize_as(principal, call, ApiAction.WORK_REVIEW, tried)

    async def _waiting(self, identifier: UUID | None) -> Work:
        work = None if identifier is None else await self._store.find(identifier, None)
        if work is None:
            raise _unknown()
        if work.state is not WorkState.IN_REVIEW:
            raise Refusal(Problem.WORK_GONE, f"The work is {work.state}; it waits for no review.")
        return work

    async def _about(self, exchange: Exchange, work: Work) -> RequestRecord:
        """Let the record of this request say whose data and which run it is about."""
        try:
            run = (await self._store.result(work)).record
        except SealBroken:
            # It may have ended since it was looked up.
            await self._waiting(work.id)
            raise
        exchange.id = work.id
        exchange.pseudonym = run.subject
        if run.model is not None:
            exchange.model = ModelInfo(run.model, run.model_version or "", run.model_digest)
        return run


async def _verdict(receive: Receive) -> WorkVerdict:
    try:
        body = await read_body(receive, None, BODY_LIMIT_BYTES)
        return msgspec.json.decode(body, type=Judgement).verdict
    except msgspec.MsgspecError:
        raise Refusal(
            Problem.BODY_MALFORMED,
            f'The body is {{"verdict": ...}} with one of {", ".join(WorkVerdict)}.',
        ) from None


def _unknown() -> Refusal:
    return Refusal(Problem.WORK_UNKNOWN, "There is no work of this identifier.")


def _summary(work: Work) -> dict[str, Any]:
    return {
        "id": work.id,
        "principal": work.principal,
        "submitted": work.submitted,
        "finished": work.finished,
        "expires": work.expires,
    }


def _particulars(run: RequestRecord) -> dict[str, Any]:
    return {
        "roles": run.roles,
        "subject": run.subject,
        "model": run.model,
        "model_version": run.model_version,
        "data_class": run.data_class,
        "jurisdiction": run.jurisdiction,
        "purpose": run.purpose,
        "consent": run.consent,
        "emergency": run.emergency,
        "placement": run.placement,
        "rows": run.rows,
        "policies": run.policies,
        "obligations": run.obligations,
    }


def _headers(record: str) -> list[tuple[bytes, bytes]]:
    return [*JSON, (b"bedside-record", record.encode())]
