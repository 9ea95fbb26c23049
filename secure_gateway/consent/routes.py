"""The routes of consent: record it, show what was recorded, withdraw it.

    POST   /v1/consents    what a person agreed to, and until when
    GET    /v1/consents    what was recorded of a person, named in `Bedside-Subject`
    DELETE /v1/consents    one grant, or all of a person's

The person stands in the body or in the header `Bedside-Subject`, never in a path or a query, which end
up in other people's logs. A grant and a withdrawal are durable in the log before they count.
"""

import time
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from audit import LogUnavailable
from audit.pseudonyms import Pseudonymizer
from audit.records import Action, ConsentScope, Problem, Time
from policies import ApiAction, CallerKind, DataClass, Principal, Purpose
from secure_gateway import respond
from secure_gateway.asgi import ClientGone, Receive, Scope, Send, read_body, send_response
from secure_gateway.authenticate import Authenticator
from secure_gateway.claims import NO_CLAIMS, SUBJECT, refuse_repeated, text_of
from secure_gateway.consent.grants import Grant, time_of
from secure_gateway.consent.settings import ConsentSettings
from secure_gateway.consent.store import ConsentFull, ConsentRegistry, ConsentUnavailable
from secure_gateway.describe import subject_of
from secure_gateway.directory import DeviceDirectory
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Call, Exchange
from secure_gateway.pipeline import Pipeline
from secure_gateway.record import Recorder

PATH: Final = "/v1/consents"
BODY_LIMIT_BYTES: Final = 64 * 1024
RETRY_AFTER_S: Final = 2
DAY_MS: Final = 86_400_000

_JSON: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
)
_ACTIONS: Final = {
    "POST": Action.CONSENT_GRANT,
    "GET": Action.CONSENT_READ,
    "DELETE": Action.CONSENT_WITHDRAW,
}
_PERMISSIONS: Final = {
    Action.CONSENT_GRANT: ApiAction.CONSENTS_GRANT,
    Action.CONSENT_READ: ApiAction.CONSENTS_READ,
    Action.CONSENT_WITHDRAW: ApiAction.CONSENTS_WITHDRAW,
}

Named = Annotated[str, Meta(min_length=1, max_length=256)]


class GrantBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person agreed to; without `models` or `data_classes`, to all of them."""

    purposes: Annotated[tuple[Purpose, ...], Meta(min_length=1, max_length=16)]
    expires: Time
    subject: Named | None = None
    models: Annotated[tuple[Named, ...], Meta(max_length=64)] = ()
    data_classes: Annotated[tuple[DataClass, ...], Meta(max_length=16)] = ()
    begins: Time | None = None


class WithdrawalBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose consent ends: the grant `id`, or all of them."""

    subject: Named | None = None
    id: UUID | None = None


B = TypeVar("B", GrantBody, WithdrawalBody)
Work = Callable[[Exchange], Awaitable[None]]


class ConsentApi:
    """Serves the routes above, as a plain ASGI callable."""

    def __init__(
        self,
        registry: ConsentRegistry,
        settings: ConsentSettings,
        *,
        authenticator: Authenticator,
        pipeline: Pipeline,
        recorder: Recorder,
        pseudonymizer: Pseudonymizer,
        directory: DeviceDirectory,
        models: Callable[[], Container[str]],
    ) -> None:
        """Serve `registry`; `models` tells the names that the site registered."""
        self._registry = registry
        self._lifetime_max_ms = settings.lifetime_max_days * DAY_MS
        self._lifetime_max_days = settings.lifetime_max_days
        self._authenticator = authenticator
        self._pipeline = pipeline
        self._recorder = recorder
        self._pseudonymizer = pseudonymizer
        self._directory = directory
        self._models = models

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
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        headers: Mapping[bytes, bytes] = dict(raw)
        action = _ACTIONS.get(scope["method"], Action.CONSENT_READ)
        call = Call(
            action=action,
            authorization=headers.get(b"authorization"),
            claims=NO_CLAIMS,
            started_ns=time.monotonic_ns(),
        )
        try:
            principal = self._authenticator.authenticate(call.authorization)
        except Refusal as unknown_caller:
            return respond.http(await self._pipeline.refuse(call, unknown_caller))
        asked = _Asked(principal, call, headers, receive)

        async def check() -> None:
            if scope["method"] not in _ACTIONS:
                raise Refusal(Problem.METHOD_NOT_ALLOWED, f"Use {', '.join(_ACTIONS)} here.")
            refuse_repeated(raw)

        if action is Action.CONSENT_GRANT:
            return await self._grant(asked, check)
        if action is Action.CONSENT_WITHDRAW:
            return await self._withdraw(asked, check)
        return await self._show(asked, check)

    async def _grant(self, asked: "_Asked", check: Callable[[], Awaitable[None]]) -> respond.Http:
        made: list[Grant] = []

        async def work(exchange: Exchange) -> None:
            await check()
            body = await asked.body(GrantBody)
            self._identify(exchange, asked, body.subject)
            grant = self._grant_of(exchange, body)
            await self._registry.room(grant.subject)
            exchange.scope = _scope_of((grant,), times=True)
            made.append(grant)

        answer = await self._authorized(asked, work)
        if answer.exchange.refusal is not None:
            return respond.http(answer)
        (grant,) = made
        try:
            await self._registry.add(grant, answer.record)
        except ConsentUnavailable:
            return await self._failed(answer)
        document = _document(grant, self._registry.now_ms()) | {"record": answer.record}
        return 201, _headers(answer), msgspec.json.encode(document)

    async def _withdraw(self, asked: "_Asked", check: Callable[[], Awaitable[None]]) -> respond.Http:
        ending: list[Grant] = []

        async def work(exchange: Exchange) -> None:
            await check()
            body = await asked.body(WithdrawalBody)
            subject = self._identify(exchange, asked, body.subject)
            ending.extend(await self._registry.to_withdraw(subject, body.id))
            exchange.scope = _scope_of(ending, times=False)

        answer = await self._authorized(asked, work)
        if answer.exchange.refusal is not None:
            return respond.http(answer)
        ids = [grant.id for grant in ending]
        try:
            await self._registry.withdraw(ids, asked.principal.id)
        except ConsentUnavailable:
            return await self._failed(answer)
        document = {"withdrawn": ids, "record": answer.record}
        return 200, _headers(answer), msgspec.json.encode(document)

    async def _show(self, asked: "_Asked", check: Callable[[], Awaitable[None]]) -> respond.Http:
        found: list[Grant] = []

        async def work(exchange: Exchange) -> None:
            await check()
            found.extend(await self._registry.grants(self._identify(exchange, asked, None)))

        answer = await self._authorized(asked, work)
        if answer.exchange.refusal is not None:
            return respond.http(answer)
        now_ms = self._registry.now_ms()
        document = {"consents": [_document(grant, now_ms) for grant in found]}
        return 200, _headers(answer), msgspec.json.encode(document)

    async def _authorized(self, asked: "_Asked", work: Work) -> Answer:
        own = asked.principal.kind in (CallerKind.APP, CallerKind.DEVICE)
        permission = ApiAction.CONSENTS_OWN if own else _PERMISSIONS[asked.call.action]

        async def guarded(exchange: Exchange) -> None:
            try:
                await work(exchange)
            except ConsentUnavailable:
                raise _unavailable() from None
            except ConsentFull as full:
                raise Refusal(Problem.RATE_LIMITED, f"{full}; withdraw some first.") from full

        return await self._pipeline.authorize_as(asked.principal, asked.call, permission, guarded)

    async def _failed(self, answer: Answer) -> respond.Http:
        """Record that what was just recorded does not count, and say so."""
        exchange = answer.exchange
        exchange.refusal = _unavailable()
        return respond.refusal(exchange.refusal, record=await self._recorder.record(exchange))

    def _identify(self, exchange: Exchange, asked: "_Asked", stated: str | None) -> str:
        """Set and return the pseudonym of the person whom the request is about."""
        principal, named = asked.principal, text_of(asked.headers.get(SUBJECT))
        if stated is not None and named is not None and stated != named:
            raise Refusal(Problem.FACTS_INVALID, "The body and Bedside-Subject name two people.")
        subject = subject_of(principal, named if stated is None else stated)
        if subject is None:
            raise Refusal(Problem.FACTS_INVALID, "Name the person in `subject` or Bedside-Subject.")
        exchange.pseudonym = pseudonym = self._pseudonymizer.pseudonym(subject)
        if principal.kind is CallerKind.APP and principal.asserted.subject is None:
            raise Refusal(
                Problem.POLICY_REFUSED,
                "An app speaks for the person whom its token names, and no other.",
            )
        if principal.kind is CallerKind.DEVICE and self._directory.holder_of(pseudonym) != principal.id:
            raise Refusal(
                Problem.POLICY_REFUSED, "A device speaks for people whose data it holds, and no others."
            )
        return pseudonym

    def _grant_of(self, exchange: Exchange, body: GrantBody) -> Grant:
        now_ms = self._registry.now_ms()
        begins_ms = now_ms if body.begins is None else max(now_ms, _milliseconds(body.begins))
        expires_ms = _milliseconds(body.expires)
        if not begins_ms < expires_ms <= now_ms + self._lifetime_max_ms:
            raise Refusal(
                Problem.FACTS_INVALID,
                "`expires` must be after now and after `begins`, and at most "
                f"{self._lifetime_max_days} days away.",
            )
        if not all(name in self._models() for name in body.models):
            raise Refusal(Problem.MODEL_UNKNOWN, "`models` names one that this site does not have.")
        principal, subject = exchange.principal, exchange.pseudonym
        if principal is None or subject is None:
            message = "a grant is made of an identified person by a known caller"
            raise AssertionError(message)
        return Grant(
            id=exchange.id,
            subject=subject,
            purposes=frozenset(body.purposes),
            models=frozenset(body.models),
            data_classes=frozenset(body.data_classes),
            granted_by=principal.id,
            granted_ms=now_ms,
            begins_ms=begins_ms,
            expires_ms=expires_ms,
        )


class _Asked:
    """One request: who sent it, and its body once it is read."""

    def __init__(
        self, principal: Principal, call: Call, headers: Mapping[bytes, bytes], receive: Receive
    ) -> None:
        self.principal = principal
        self.call = call
        self.headers = headers
        self._receive = receive

    async def body(self, kind: type[B]) -> B:
        """Return the body; no body at all is an empty one.

        Raises:
            Refusal: body-malformed or body-too-large, in words of ours: the library's may quote.
        """
        body = await read_body(self._receive, self.headers.get(b"content-length"), BODY_LIMIT_BYTES)
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except msgspec.MsgspecError:
            names = ", ".join(kind.__struct_fields__)
            raise Refusal(
                Problem.BODY_MALFORMED,
                f"The body is not a JSON object of this route's schema ({names}).",
            ) from None


def _scope_of(grants: Sequence[Grant], *, times: bool) -> ConsentScope:
    def union(of: Callable[[Grant], frozenset[str]]) -> tuple[str, ...]:
        # One without a limit makes all of them unlimited.
        sets = [of(grant) for grant in grants]
        return tuple(sorted(frozenset().union(*sets))) if all(sets) else ()

    return ConsentScope(
        grants=tuple(grant.id for grant in grants),
        purposes=tuple(sorted({purpose for grant in grants for purpose in grant.purposes})),
        models=union(lambda grant: grant.models),
        data_classes=union(lambda grant: frozenset(grant.data_classes)),
        begins=time_of(grants[0].begins_ms) if times else None,
        expires=time_of(grants[0].expires_ms) if times else None,
    )


def _document(grant: Grant, now_ms: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": grant.id,
        "state": grant.state(now_ms),
        "purposes": sorted(grant.purposes),
        "models": sorted(grant.models),
        "data_classes": sorted(grant.data_classes),
        "granted": time_of(grant.granted_ms),
        "granted_by": grant.granted_by,
        "begins": time_of(grant.begins_ms),
        "expires": time_of(grant.expires_ms),
    }
    if grant.record:
        fields["record"] = grant.record
    if grant.withdrawn_ms is not None:
        fields["withdrawn"] = time_of(grant.withdrawn_ms)
    return fields


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    return [*_JSON, (b"bedside-record", answer.record.encode())]


def _milliseconds(when: Time) -> int:
    return int(when.timestamp() * 1000)


def _unavailable() -> Refusal:
    return Refusal(
        Problem.CONSENT_UNAVAILABLE,
        "The consent registry cannot be used now, so nothing was changed; try again.",
        retry_after_s=RETRY_AFTER_S,
    )
