"""The routes of asynchronous work: submit, look, fetch once, cancel.

    POST   /v1/models/<model>[/versions/<version>]/work    an Open Inference Protocol body
    GET    /v1/work/<id>                                   where it stands
    GET    /v1/work/<id>/result                            the response, once
    DELETE /v1/work/<id>                                   cancel

Those of the review of withheld results are in `secure_gateway.work.review`.
Another principal's work is as unknown as work that never was.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct, structs

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import decode_request
from policies import ApiAction, Engine, Principal
from secure_gateway import encodings, respond
from secure_gateway.asgi import ClientGone, Receive, Scope, Send, length_of, read_body, send_response
from secure_gateway.authenticate import Authenticator
from secure_gateway.claims import NO_CLAIMS, claims_of, refuse_repeated
from secure_gateway.consent.reconsider import Reconsideration
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call, Exchange
from secure_gateway.ids import new_id
from secure_gateway.pipeline import Pipeline
from secure_gateway.record import Recorder
from secure_gateway.sealing import SealBroken
from secure_gateway.work.content import Result, Submission
from secure_gateway.work.errors import WorkFull, WorkStoreError, unavailable
from secure_gateway.work.records import cancelled, fetched
from secure_gateway.work.review import JSON, Review, WorkReviews
from secure_gateway.work.runner import WorkRunner
from secure_gateway.work.settings import WorkSettings
from secure_gateway.work.store import WorkStore
from secure_gateway.work.tables import Work, WorkState

LIFETIME: Final = b"bedside-work-lifetime"
ENCODING: Final = b"content-encoding"
HEADER_LENGTH: Final = b"inference-header-content-length"
POLL_AFTER_S: Final = 1
LIFETIME_DIGITS: Final = 12
FULL_RETRY_AFTER_S: Final = 10

_UNFINISHED: Final = (WorkState.QUEUED, WorkState.RUNNING, WorkState.IN_REVIEW)
_WAITS: Final = {WorkState.IN_REVIEW: "It waits for the review of a second person."}
_GONE: Final = {WorkState.REFUSED: "It was refused before it was fetched; nothing of it is kept."}

Headers = Mapping[bytes, bytes]
T = TypeVar("T")


class Look(Enum):
    """What is asked for without a record: where work stands."""

    STATE = "state"


_Actions = Mapping[str, Action | Look | Review]


class _Target(Struct, frozen=True, kw_only=True):
    """What a path names, and what each method does there."""

    actions: _Actions
    model: str | None = None
    version: str | None = None
    work: UUID | None = None


_SUBMIT: Final[_Actions] = {"POST": Action.SUBMIT}
_REVIEW: Final[_Actions] = {"GET": Review.SHOW, "POST": Review.JUDGE}


def serves_path(path: str) -> bool:
    """Say whether `path`, one under /v1, is about asynchronous work."""
    return path.startswith("/v1/work/") or (path.startswith("/v1/models/") and path.endswith("/work"))


class WorkApi:
    """Serves the routes above, as a plain ASGI callable."""

    def __init__(
        self,
        store: WorkStore,
        runner: WorkRunner,
        settings: WorkSettings,
        *,
        engine: Engine,
        authenticator: Authenticator,
        pipeline: Pipeline,
        recorder: Recorder,
        reconsideration: Reconsideration,
        body_limit_bytes: int,
    ) -> None:
        self._reconsider = reconsideration.withdrawn
        self._engine = engine
        self._store = store
        self._runner = runner
        self._settings = settings
        self._authenticator = authenticator
        self._pipeline = pipeline
        self._recorder = recorder
        self._body_limit_bytes = body_limit_bytes
        self._busy: set[UUID] = set()
        self._reviews = WorkReviews(store, engine, pipeline, self._alone)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            http = await self._answer(scope, receive)
        except LogUnavailable:
            http = respond.log_unavailable()
        except ClientGone:
            return
        await send_response(send, *http)

    async def _answer(self, scope: Scope, receive: Receive) -> respond.Http:
        headers: Headers = dict(scope["headers"])
        target = _target(scope["path"])
        action = target.actions.get(scope["method"])
        call = Call(
            action=_recorded(action),
            authorization=headers.get(b"authorization"),
            claims=claims_of(headers) if action is Action.SUBMIT else NO_CLAIMS,
            started_ns=time.monotonic_ns(),
            model=target.model,
            version=target.version,
            kept=True,
        )
        try:
            principal = self._authenticator.authenticate(call.authorization)
        except Refusal as unknown_caller:
            return await self._refused(None, call, unknown_caller)
        try:
            if action is None:
                raise _no_route(target)
            if action is Action.SUBMIT:
                return await self._submit(principal, call, scope, receive)
            if isinstance(action, Review):
                return await self._reviews.answer(action, principal, call, target.work, receive)
            may = ApiAction.WORK_CANCEL if action is Action.CANCEL else ApiAction.WORK_READ
            work = await self._find(principal, target.work, may)
            if action is Look.STATE:
                # Where one's own work stands moves nobody's data, so it is not recorded.
                return 200, _status_headers(work), msgspec.json.encode(_document(work))
            if action is Action.FETCH:
                _refuse_unfinished(work)
            with self._alone(work.id):
                # Whoever was at it before may have ended it.
                work = await self._find(principal, work.id, may)
                if action is Action.CANCEL:
                    return await self._cancel(principal, call, work)
                return await self._fetch(principal, call, work)
        except Refusal as refusal:
            return await self._refused(principal, call, refusal)
        except WorkStoreError:
            return await self._refused(principal, call, unavailable())
        except SealBroken:
            unusable = Refusal(Problem.INTERNAL, "What is kept of the work does not open.")
            return await self._refused(principal, call, unusable)

    async def _submit(
        self, principal: Principal, call: Call, scope: Scope, receive: Receive
    ) -> respond.Http:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        headers = dict(raw)
        if len(headers) != len(raw):
            refuse_repeated(raw)
            if sum(name == LIFETIME for name, _ in raw) > 1:
                raise Refusal(Problem.FACTS_INVALID, "Bedside-Work-Lifetime was sent twice.")
        lifetime_s = self._lifetime_s(headers.get(LIFETIME))
        self._pipeline.expect(principal, call)
        body = await read_body(receive, headers.get(b"content-length"), self._body_limit_bytes)
        if ENCODING in headers:
            body = await encodings.plain(body, headers[ENCODING], self._body_limit_bytes)
        submission = Submission(
            principal=principal,
            claims=call.claims,
            model=call.model or "",
            version=call.version,
            body=body,
            header_length=length_of(headers.get(HEADER_LENGTH), "Inference-Header-Content-Length"),
        )
        decode = partial(decode_request, body, header_length=submission.header_length)
        try:
            async with self._store.room(principal.id, len(body)):
                # Decided and recorded before anything of it is kept.
                answer = await self._pipeline.serve_as(principal, call, decode)
                if answer.exchange.refusal is not None:
                    return respond.http(answer)
                work = await self._store.add(answer.exchange.id, submission, lifetime_s)
        except WorkFull as full:
            raise Refusal(
                Problem.RATE_LIMITED, f"{full}; try later.", retry_after_s=FULL_RETRY_AFTER_S
            ) from full
        self._runner.wake()
        fields = _document(work) | {"record": answer.record}
        located = [
            *_status_headers(work),
            (b"location", f"/v1/work/{work.id}".encode()),
            (b"bedside-record", answer.record.encode()),
        ]
        return 202, located, msgspec.json.encode(fields)

    async def _fetch(self, principal: Principal, call: Call, work: Work) -> respond.Http:
        if work.state is WorkState.FAILED:
            failure = await self._opened(work, self._store.failure)
            raise Refusal(
                failure.problem,
                failure.detail,
                policies=failure.policies,
                citations=failure.citations,
            )
        _refuse_unfinished(work)
        if work.state is not WorkState.DONE:
            raise _gone(work.state)
        result = await self._opened(work, self._store.result)
        run = result.record
        withdrawn = await self._reconsider(run.subject, result.facts, result.candidates, run.placement)
        if withdrawn is not None:
            refused = await self._refused(principal, call, withdrawn)
            await self._store.refuse(work)
            return refused
        record = await self._recorder.append(fetched(run, principal, call, work.id))
        # Deleted before it is sent: whatever happens from here on, it is not sent again.
        if not await self._store.hand_over(work):
            raise _gone(WorkState.EXPIRED)
        return 200, _result_headers(result, record), result.body

    async def _opened(self, work: Work, read: Callable[[Work], Awaitable[T]]) -> T:
        try:
            return await read(work)
        except SealBroken:
            now = await self._store.find(work.id, work.principal)
            if now is not None and now.state is work.state:
                raise
            # Its time was over in between.
            raise _gone(WorkState.EXPIRED) from None

    async def _cancel(self, principal: Principal, call: Call, work: Work) -> respond.Http:
        if work.state in (WorkState.FETCHED, WorkState.EXPIRED, WorkState.REFUSED):
            raise _gone(work.state)
        record = await self._recorder.append(cancelled(principal, call, work.id))
        if not await self._store.cancel(work) and work.state is not WorkState.CANCELLED:
            raise _gone(WorkState.EXPIRED)
        ended = structs.replace(work, state=WorkState.CANCELLED)
        headers = [*JSON, (b"bedside-record", record.encode())]
        return 200, headers, msgspec.json.encode(_document(ended) | {"record": record})

    async def _find(self, principal: Principal, identifier: UUID | None, action: ApiAction) -> Work:
        """Return work that policy lets the caller at; it is not said whether there is other work."""
        work = None if identifier is None else await self._store.find(identifier, None)
        own = work is not None and work.principal == principal.id
        if not self._engine.authorize(principal.caller, action, own=own).allowed or work is None:
            raise Refusal(Problem.WORK_UNKNOWN, "The caller has no work of this identifier.")
        return work

    @contextmanager
    def _alone(self, identifier: UUID) -> Iterator[None]:
        """Let one caller at a time fetch, cancel or judge a piece of work."""
        if identifier in self._busy:
            raise _not_done("It is being fetched, cancelled or judged right now.")
        self._busy.add(identifier)
        try:
            yield
        finally:
            self._busy.discard(identifier)

    def _lifetime_s(self, value: bytes | None) -> int:
        if value is None:
            return self._settings.lifetime_s
        longest = self._settings.lifetime_max_s
        if not value.isdigit() or len(value) > LIFETIME_DIGITS or not 0 < int(value) <= longest:
            raise Refusal(
                Problem.FACTS_INVALID,
                f"Bedside-Work-Lifetime must be a number of seconds from 1 to {longest}.",
            )
        return int(value)

    async def _refused(self, principal: Principal | None, call: Call, refusal: Refusal) -> respond.Http:
        # Not `Pipeline.refuse`: it would authenticate again, and a device's assertion counts once.
        exchange = Exchange(call, new_id(), datetime.now(UTC))
        exchange.principal = principal
        exchange.refusal = refusal
        return respond.refusal(refusal, record=await self._recorder.record(exchange))


def _target(path: str) -> _Target:
    match path.split("/")[2:]:
        case ["models", model, "work"]:
            return _Target(actions=_SUBMIT, model=model)
        case ["models", model, "versions", version, "work"]:
            return _Target(actions=_SUBMIT, model=model, version=version)
        case ["work", "reviews"]:
            return _Target(actions={"GET": Review.LIST})
        case ["work", work, "review"]:
            return _Target(actions=_REVIEW, work=_identifier(work))
        case ["work", work, "result"]:
            return _Target(actions={"GET": Action.FETCH}, work=_identifier(work))
        case ["work", work]:
            actions: _Actions = {"GET": Look.STATE, "DELETE": Action.CANCEL}
            return _Target(actions=actions, work=_identifier(work))
    return _Target(actions={})


def _recorded(action: Action | Look | Review | None) -> Action:
    """Return what a request is recorded as."""
    if isinstance(action, Review):
        return Action.REVIEW
    # The state of work is looked at on the way to its result.
    return Action.FETCH if action is None or action is Look.STATE else action


def _identifier(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _refuse_unfinished(work: Work) -> None:
    if work.state in _UNFINISHED:
        raise _not_done(_WAITS.get(work.state, "It has not run yet; ask again later."))


def _not_done(detail: str) -> Refusal:
    return Refusal(Problem.WORK_NOT_DONE, detail, retry_after_s=POLL_AFTER_S)


def _gone(state: WorkState) -> Refusal:
    detail = _GONE.get(state, f"The work is {state}; nothing of it is kept.")
    return Refusal(Problem.WORK_GONE, detail)


def _no_route(target: _Target) -> Refusal:
    if not target.actions:
        return Refusal(Problem.NOT_FOUND, "Work is under /v1/models/<model>/work and /v1/work/<id>.")
    allow = tuple(target.actions)
    return Refusal(Problem.METHOD_NOT_ALLOWED, f"Use {' or '.join(allow)} here.", allow=allow)


def _document(work: Work) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": work.id,
        "state": work.state,
        "submitted": work.submitted,
        "expires": work.expires,
    }
    if work.started is not None:
        fields["started"] = work.started
    if work.finished is not None:
        fields["finished"] = work.finished
    if work.problem is not None:
        fields["problem"] = f"urn:bedside:problem:{work.problem}"
    return fields


def _status_headers(work: Work) -> list[tuple[bytes, bytes]]:
    if work.state in _UNFINISHED:
        return [*JSON, (b"retry-after", b"%d" % POLL_AFTER_S)]
    return list(JSON)


def _result_headers(result: Result, record: str) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in result.headers if name != b"bedside-record"]
    return [*kept, (b"cache-control", b"no-store"), (b"bedside-record", record.encode())]
