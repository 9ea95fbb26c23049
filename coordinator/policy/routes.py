"""`/v1/policy`: what gateways fetch, and what people do with policies through the API.

Steps of a bundle's life are recorded in the log of the site's policies, questions in the coordinator's.
Both say who asked, and refusals are there too.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, FastAPI, Request, Response

from audit.records import PolicyProblem, PolicyStep
from audit.steps import step_record
from coordinator.authenticate import authenticate, check
from coordinator.parts import CoordinatorParts
from coordinator.policy.tools import Tools
from coordinator.problems import Refused
from coordinator.questions import (
    DraftQuestion,
    ExplainQuestion,
    PeriodQuestion,
    RollbackQuestion,
    ShadowQuestion,
    SignatureQuestion,
)
from policies import ApiAction, BundleUntrusted, Principal

T = TypeVar("T")


class Busy:
    """Lets one piece of long work run at a time, in a thread; another is refused at once."""

    def __init__(self) -> None:
        self._busy = False

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns.

        Raises:
            Refused: if other work is being done.
        """
        self.enter()
        try:
            return await asyncio.to_thread(work)
        finally:
            self.leave()

    def enter(self) -> None:
        """Take the place, if it is free."""
        if self._busy:
            raise Refused(503, "policy-overloaded", "Other policies are being examined; try again.")
        self._busy = True

    def leave(self) -> None:
        """Give the place back."""
        self._busy = False


def policy_routes(app: FastAPI, parts: CoordinatorParts) -> None:
    """Add the routes to `app`."""
    _documents(app, parts)
    busy = Busy()
    _life(app, parts, busy)
    _questions(app, parts, busy)
    _shadow(app, parts, busy)


def _documents(app: FastAPI, parts: CoordinatorParts) -> None:
    @app.get("/v1/policy/bundle")
    async def bundle(request: Request) -> Response:
        """Give the signed bundle in force."""
        # What was published a moment ago must not be answered with what it replaced.
        await parts.in_force.refresh()
        return signed(request, parts.in_force.document)

    @app.get("/v1/policy/shadow")
    async def shadow(request: Request) -> Response:
        """Give the signed candidate that decides in the shadow; 404 where there is none."""
        path = parts.desk.folder.shadow
        return signed(request, await asyncio.to_thread(_content, path))


def _life(app: FastAPI, parts: CoordinatorParts, busy: Busy) -> None:
    desk = parts.desk

    @app.post("/v1/policy/drafts", status_code=201)
    async def draft(
        question: DraftQuestion,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_DRAFT, PolicyStep.DRAFT)],
    ) -> dict[str, Any]:
        """Keep a bundle until it is signed and published."""
        document = json.dumps(question.document).encode()
        return {"digest": await desk.draft(document, principal.id)}

    @app.post("/v1/policy/rollback", status_code=201)
    async def rollback(
        question: RollbackQuestion,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_DRAFT, PolicyStep.DRAFT)],
    ) -> dict[str, Any]:
        """Draft what was published before as a higher version."""
        document = await asyncio.to_thread(desk.rollback, question.version, question.reason)
        return {"digest": await desk.draft(document, principal.id)}

    @app.get("/v1/policy/drafts/{digest}")
    async def find(
        digest: str,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_READ, PolicyStep.READ)],
    ) -> Response:
        """Give a draft, to be looked at and signed."""
        document = await asyncio.to_thread(desk.find, _digest(digest))
        await parts.record(step_record(PolicyStep.READ, bundle=_digest(digest), principal=principal.id))
        return Response(document, media_type="application/json")

    @app.delete("/v1/policy/drafts/{digest}")
    async def withdraw(
        digest: str,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_DRAFT, PolicyStep.WITHDRAW)],
    ) -> dict[str, Any]:
        """Let a draft wait no longer."""
        return {"version": (await desk.withdraw(_digest(digest), principal.id)).version}

    @app.post("/v1/policy/drafts/{digest}/signatures")
    async def sign(
        digest: str,
        question: SignatureQuestion,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_APPROVE, PolicyStep.SIGN)],
    ) -> dict[str, Any]:
        """Add an approver's signature to a draft."""
        document = await asyncio.to_thread(desk.find, _digest(digest))
        try:
            attached = desk.approvers.attach(document, question.model_dump())
        except BundleUntrusted as error:
            problem = PolicyProblem.UNTRUSTED
            await parts.record(
                step_record(PolicyStep.SIGN, problem=problem, bundle=digest, principal=principal.id)
            )
            raise Refused(409, f"policy-{problem.value}", str(error)) from error
        return {"approvers": await desk.sign(attached, principal.id)}

    @app.post("/v1/policy/drafts/{digest}/publish")
    async def publish(
        digest: str,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_PUBLISH, PolicyStep.PUBLISH)],
    ) -> dict[str, Any]:
        """Put a signed draft into force."""
        document = await asyncio.to_thread(desk.find, _digest(digest))
        busy.enter()
        try:
            done = await desk.publish(document, principal.id)
        finally:
            busy.leave()
        await parts.in_force.refresh()
        return _fields(done)


def _questions(app: FastAPI, parts: CoordinatorParts, busy: Busy) -> None:
    tools = Tools(parts.desk, parts.log_sources, lambda: parts.in_force.document)
    may_read = ApiAction.POLICY_READ

    @app.get("/v1/policy")
    async def status(
        principal: Annotated[Principal, _permit(parts, may_read, PolicyStep.READ)],
    ) -> dict[str, Any]:
        """Say what is in force, who approves, what waits, and every step that was taken."""
        found = await asyncio.to_thread(tools.status)
        await parts.record(step_record(PolicyStep.READ, principal=principal.id))
        return found

    for step, tool in tools.examinations.items():
        _examination(app, parts, busy, tools, step, tool)

    @app.post("/v1/policy/bundles/{digest}/explain")
    async def explain(
        digest: str,
        question: ExplainQuestion,
        principal: Annotated[Principal, _permit(parts, may_read, PolicyStep.EXPLAIN)],
    ) -> dict[str, Any]:
        """Decide a made-up request under a draft, or `in-force`, and say why."""
        bundle = await asyncio.to_thread(tools.find, digest)
        found = await busy.run(lambda: tools.explain(bundle, question))
        await parts.record(
            step_record(PolicyStep.EXPLAIN, bundle=bundle.digest(), principal=principal.id)
        )
        return found

    @app.post("/v1/policy/bundles/{digest}/diff")
    async def diff(
        digest: str,
        principal: Annotated[Principal, _permit(parts, may_read, PolicyStep.DIFF)],
    ) -> dict[str, Any]:
        """Give every class of facts that a draft decides otherwise than what is in force."""
        bundle = await asyncio.to_thread(tools.find, digest)
        found = await busy.run(lambda: tools.diff(bundle))
        await parts.record(step_record(PolicyStep.DIFF, bundle=bundle.digest(), principal=principal.id))
        return found

    @app.post("/v1/policy/bundles/{digest}/replay")
    async def replay(
        digest: str,
        question: PeriodQuestion,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_REPLAY, PolicyStep.REPLAY)],
    ) -> dict[str, Any]:
        """Decide recorded requests again under a draft, or `in-force`."""
        bundle = await asyncio.to_thread(tools.find, digest)
        found = await busy.run(lambda: tools.replay(bundle, question.since, question.until))
        await parts.record(
            step_record(PolicyStep.REPLAY, bundle=bundle.digest(), principal=principal.id)
        )
        return _fields(found)


def _examination(
    app: FastAPI,
    parts: CoordinatorParts,
    busy: Busy,
    tools: Tools,
    step: PolicyStep,
    tool: Callable[[Any], Any],
) -> None:
    @app.post(f"/v1/policy/bundles/{{digest}}/{step.value}", name=f"{step.value}_policy")
    async def examine(
        digest: str,
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_READ, step)],
    ) -> dict[str, Any]:
        """Check, test or prove a draft, or `in-force`; say what can be said against it."""
        bundle = await asyncio.to_thread(tools.find, digest)
        found = await busy.run(lambda: tool(bundle))
        await parts.record(step_record(step, bundle=bundle.digest(), principal=principal.id))
        return _fields(found)


def _shadow(app: FastAPI, parts: CoordinatorParts, busy: Busy) -> None:
    desk = parts.desk
    tools = Tools(desk, parts.log_sources, lambda: parts.in_force.document)

    @app.put("/v1/policy/shadow")
    async def start(
        question: ShadowQuestion,
        principal: Annotated[
            Principal, _permit(parts, ApiAction.POLICY_SHADOW, PolicyStep.SHADOW_START)
        ],
    ) -> dict[str, Any]:
        """Let a draft decide beside what is in force."""
        document = await asyncio.to_thread(desk.find, question.digest)
        return {"version": (await desk.start_shadow(document, principal.id)).version}

    @app.delete("/v1/policy/shadow")
    async def stop(
        principal: Annotated[
            Principal, _permit(parts, ApiAction.POLICY_SHADOW, PolicyStep.SHADOW_STOP)
        ],
    ) -> dict[str, Any]:
        """Let no candidate decide any more."""
        return {"version": (await desk.stop_shadow(principal.id)).version}

    @app.get("/v1/policy/shadow/report")
    async def report(
        principal: Annotated[Principal, _permit(parts, ApiAction.POLICY_REPLAY, PolicyStep.REPLAY)],
    ) -> dict[str, Any]:
        """Say what the candidate would have decided otherwise since it began."""
        found = await busy.run(tools.shadow_report)
        await parts.record(step_record(PolicyStep.REPLAY, bundle=found.bundle, principal=principal.id))
        return _fields(found)


def signed(request: Request, document: bytes) -> Response:
    """Return a signed document, or that it did not change.

    Raises:
        Refused: if there is none.
    """
    if not document:
        raise Refused(404, "not-found", "There is no such document now.")
    etag = f'"{hashlib.sha256(document).hexdigest()}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(document, media_type="application/json", headers={"ETag": etag})


def _permit(parts: CoordinatorParts, action: ApiAction, step: PolicyStep) -> Any:  # noqa: ANN401 FastAPI's
    """Return a dependency that gives the caller, or refuses and records that."""

    async def authorize(request: Request) -> Principal:
        principal: Principal | None = None
        try:
            principal = await authenticate(parts, request.headers.get("authorization"))
            check(parts, principal, action)
        except Refused:
            await parts.record(
                step_record(
                    step,
                    problem=PolicyProblem.NOT_PERMITTED,
                    principal=principal.id if principal else None,
                )
            )
            raise
        return principal

    return Depends(authorize)


def _digest(text: str) -> str:
    """Return `text` if it is a digest: it becomes part of a path."""
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise Refused(404, "policy-unknown", "No draft of this digest waits here.")
    return text


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _fields(found: msgspec.Struct) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(found)
    return fields
