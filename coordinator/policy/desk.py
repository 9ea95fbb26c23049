"""The steps of a bundle's life. Each is in the log before it takes effect, and refused ones too."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct, structs

from audit.records import PolicyProblem, PolicyRecord, PolicyStep
from audit.steps import step_record
from coordinator.errors import PolicyRefused
from coordinator.policy.folder import PolicyFolder
from coordinator.policy.gate import Examination, examine
from coordinator.policy.ledger import Ledger, Steps, publications
from policies import (
    Approvers,
    Bundle,
    BundleForeign,
    BundleInvalid,
    BundleUnderSigned,
    PolicyError,
    Rollback,
    RollbackReason,
    draft_document,
    read_draft,
    write_bundle,
)

# An approval that nobody used for so long was given for other circumstances.
DRAFT_LIFETIME: Final = timedelta(days=30)
CLOCK_SKEW: Final = timedelta(minutes=5)
DRAFTS_MAX: Final = 64


class Published(Struct, frozen=True, kw_only=True):
    """What came into force, and where the log says so."""

    version: int
    digest: str
    approvers: tuple[str, ...]
    record: str
    examination: Examination


class PolicyDesk:
    """Drafts, signatures, publications and shadows of one site."""

    def __init__(
        self,
        folder: PolicyFolder,
        approvers: Approvers,
        ledger: Ledger,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.approvers = approvers
        self.ledger = ledger
        self._clock = clock

    def next_version(self) -> int:
        """Return the version of the next draft: above all that were ever published here; blocking."""
        published = publications(self.ledger.read())
        return max([self.folder.highest(), *(step.version or 0 for step in published)]) + 1

    async def draft(self, document: bytes, principal: str | None = None) -> str:
        """Keep `document` until it is signed and published; return its digest.

        Raises:
            PolicyRefused: if it is no bundle of this site, or too many wait.
        """
        bundle = await self._read(PolicyStep.DRAFT, document, principal)
        digest = bundle.digest()
        path = self.folder.draft(digest)
        if not path.is_file() and len(list(self.folder.drafts.glob("*.json"))) >= DRAFTS_MAX:
            message = f"{DRAFTS_MAX} drafts wait already; withdraw one"
            await self._refuse(PolicyStep.DRAFT, PolicyProblem.OVERLOADED, message, bundle, principal)
        async with self.ledger.steps() as steps:
            await steps.record(_step(PolicyStep.DRAFT, bundle, principal=principal))
            if not path.is_file():
                await asyncio.to_thread(write_bundle, path, document)
        return digest

    def drafts(self) -> list[tuple[Bundle, tuple[str, ...]]]:
        """Return the drafts that wait, and who signed each; blocking."""
        documents = [path.read_bytes() for path in sorted(self.folder.drafts.glob("*.json"))]
        return [(read_draft(one), self.approvers.names_on(one)) for one in documents]

    def find(self, digest: str) -> bytes:
        """Return the draft with this digest; blocking.

        Raises:
            PolicyRefused: if there is none.
        """
        path = self.folder.draft(digest)
        if not path.is_file():
            raise PolicyRefused(PolicyProblem.UNKNOWN, "no draft of this digest waits here")
        return path.read_bytes()

    async def withdraw(self, digest: str, principal: str | None = None) -> Bundle:
        """Let a draft wait no longer; return it.

        Raises:
            PolicyRefused: if none of this digest waits.
        """
        bundle = read_draft(await asyncio.to_thread(self.find, digest))
        async with self.ledger.steps() as steps:
            await steps.record(_step(PolicyStep.WITHDRAW, bundle, principal=principal))
            self.folder.draft(digest).unlink(missing_ok=True)
        return bundle

    async def sign(self, document: bytes, principal: str | None = None) -> tuple[str, ...]:
        """Record that `document` carries approvers' signatures; return their names.

        If the same draft waits here, it is replaced by what is signed.

        Raises:
            PolicyRefused: if no approver of the site signed it.
        """
        bundle = await self._read(PolicyStep.SIGN, document, principal)
        names = self.approvers.names_on(document)
        if not names:
            message = "none of the site's approvers signed it; is the key in [policy.approvers]?"
            await self._refuse(PolicyStep.SIGN, PolicyProblem.UNTRUSTED, message, bundle, principal)
        async with self.ledger.steps() as steps:
            await steps.record(_step(PolicyStep.SIGN, bundle, principal=principal, approvers=names))
            path = self.folder.draft(bundle.digest())
            if path.is_file():
                await asyncio.to_thread(write_bundle, path, document)
        return names

    async def publish(self, document: bytes, principal: str | None = None) -> Published:
        """Put what `document` holds into force, if everything that it takes is there.

        Checks, cases and proofs pass; enough approvers signed; the version is above every other. To
        publish again what was published last finishes what a crash interrupted.

        Raises:
            PolicyRefused: naming what is missing; what was in force stays.
            LogUnavailable: if the step cannot be recorded; likewise.
        """
        bundle = await self._read(PolicyStep.PUBLISH, document, principal)
        step = PolicyStep.ROLLBACK if bundle.rollback else PolicyStep.PUBLISH
        names = self.approvers.names_on(document)
        problem, message = await asyncio.to_thread(self._objection, document, bundle)
        if problem is None:
            examination = await asyncio.to_thread(examine, bundle)
            problem, message = examination.problem, "; ".join(examination.objections)
        async with self.ledger.steps() as steps:
            if problem is None:
                problem, message = await asyncio.to_thread(self._outdated, bundle, steps)
            if problem is not None:
                await steps.record(
                    _step(step, bundle, principal=principal, approvers=names, problem=problem)
                )
                raise PolicyRefused(problem, message)
            await asyncio.to_thread(write_bundle, self.folder.published(bundle.version), document)
            record = await steps.record(_step(step, bundle, principal=principal, approvers=names))
            await asyncio.to_thread(write_bundle, self.folder.bundle, document)
            self.folder.draft(bundle.digest()).unlink(missing_ok=True)
        return Published(
            version=bundle.version,
            digest=bundle.digest(),
            approvers=names,
            record=record,
            examination=examination,
        )

    def rollback(self, version: int, reason: RollbackReason) -> bytes:
        """Return a draft that brings back what was published as `version`; blocking.

        Raises:
            PolicyRefused: if that was never published here.
        """
        earlier = self._published(version)
        return draft_document(
            structs.replace(
                earlier,
                version=self.next_version(),
                created=self._clock().replace(microsecond=0),
                rollback=Rollback(version=version, reason=reason),
            )
        )

    async def start_shadow(self, document: bytes, principal: str | None = None) -> Bundle:
        """Let what `document` holds decide beside what is in force, without any effect.

        Raises:
            PolicyRefused: if not even one approver signed it, or it does not validate.
        """
        bundle = await self._read(PolicyStep.SHADOW_START, document, principal)
        names = self.approvers.names_on(document)
        problem, message = await asyncio.to_thread(self._untrusted, document, 1)
        if problem is not None:
            await self._refuse(PolicyStep.SHADOW_START, problem, message, bundle, principal)
        async with self.ledger.steps() as steps:
            await steps.record(
                _step(PolicyStep.SHADOW_START, bundle, principal=principal, approvers=names)
            )
            await asyncio.to_thread(write_bundle, self.folder.shadow, document)
        return bundle

    async def stop_shadow(self, principal: str | None = None) -> Bundle:
        """Let nothing decide beside what is in force any more; return what did.

        Raises:
            PolicyRefused: if nothing did.
        """
        if not self.folder.shadow.is_file():
            raise PolicyRefused(PolicyProblem.UNKNOWN, "no candidate decides in the shadow")
        bundle = read_draft(await asyncio.to_thread(self.folder.shadow.read_bytes))
        async with self.ledger.steps() as steps:
            await steps.record(_step(PolicyStep.SHADOW_STOP, bundle, principal=principal))
            self.folder.shadow.unlink(missing_ok=True)
        return bundle

    def _published(self, version: int) -> Bundle:
        digests = {step.version: step.bundle for step in publications(self.ledger.read())}
        path = self.folder.published(version)
        if version not in digests or not path.is_file():
            raise PolicyRefused(PolicyProblem.UNKNOWN, f"version {version} was never published here")
        bundle = read_draft(path.read_bytes())
        if bundle.digest() != digests[version]:
            raise PolicyRefused(
                PolicyProblem.CONTENT_DIFFERS, f"{path} is not what the log says was published"
            )
        return bundle

    def _objection(self, document: bytes, bundle: Bundle) -> tuple[PolicyProblem | None, str]:
        problem, message = self._untrusted(document, None)
        if problem is None:
            problem, message = self._untimely(bundle)
        if problem is None and bundle.rollback is not None:
            problem, message = self._not_restored(bundle, bundle.rollback)
        return problem, message

    def _untrusted(self, document: bytes, threshold: int | None) -> tuple[PolicyProblem | None, str]:
        try:
            self.approvers.verify(document, threshold=threshold)
        except PolicyError as error:
            return _problem_of(error), str(error)
        return None, ""

    def _untimely(self, bundle: Bundle) -> tuple[PolicyProblem | None, str]:
        now = self._clock()
        if bundle.created is None:
            return PolicyProblem.INVALID, "it does not say when it was drafted"
        if bundle.created > now + CLOCK_SKEW:
            return (
                PolicyProblem.CLOCK_OFF,
                f"it was drafted at {bundle.created:%Y-%m-%d %H:%M} UTC, which is still to come",
            )
        if now - bundle.created > DRAFT_LIFETIME:
            return (
                PolicyProblem.DRAFT_EXPIRED,
                f"it was drafted more than {DRAFT_LIFETIME.days} days ago; draft and sign it again",
            )
        return None, ""

    def _not_restored(self, bundle: Bundle, rollback: Rollback) -> tuple[PolicyProblem | None, str]:
        try:
            earlier = self._published(rollback.version)
        except PolicyRefused as error:
            return error.problem, str(error)
        changed = {"version": bundle.version, "created": bundle.created, "rollback": rollback}
        if structs.replace(earlier, **changed) != bundle:
            return (
                PolicyProblem.CONTENT_DIFFERS,
                f"it says that it brings back version {rollback.version}, and holds something else",
            )
        return None, ""

    def _outdated(self, bundle: Bundle, steps: Steps) -> tuple[PolicyProblem | None, str]:
        published = steps.published()
        last = published[-1] if published else None
        if last is not None and last.bundle == bundle.digest():
            return None, ""
        highest = max([self.folder.highest(), *(step.version or 0 for step in published)])
        if self.folder.published(bundle.version).is_file() and highest == bundle.version:
            # Kept, and never recorded: a publication that ended between the two.
            kept = read_draft(self.folder.published(bundle.version).read_bytes())
            if kept.digest() == bundle.digest():
                return None, ""
        if bundle.version <= highest:
            return (
                PolicyProblem.VERSION_OUTDATED,
                f"version {highest} was published already; draft this one as {highest + 1}",
            )
        return None, ""

    async def _read(self, step: PolicyStep, document: bytes, principal: str | None) -> Bundle:
        """Return the bundle in `document`, if it is one of this site."""
        try:
            bundle = await asyncio.to_thread(read_draft, document)
            self.approvers.names_on(document)
            if bundle.name != self.approvers.site:
                raise BundleForeign("it was made for another site")
        except PolicyError as error:
            problem = _problem_of(error)
            async with self.ledger.steps() as steps:
                await steps.record(step_record(step, problem=problem, principal=principal))
            raise PolicyRefused(problem, str(error)) from error
        return bundle

    async def _refuse(
        self,
        step: PolicyStep,
        problem: PolicyProblem,
        message: str,
        bundle: Bundle,
        principal: str | None,
    ) -> None:
        async with self.ledger.steps() as steps:
            await steps.record(_step(step, bundle, principal=principal, problem=problem))
        raise PolicyRefused(problem, message)


def _step(
    step: PolicyStep,
    bundle: Bundle,
    *,
    principal: str | None,
    approvers: tuple[str, ...] = (),
    problem: PolicyProblem | None = None,
) -> PolicyRecord:
    return step_record(
        step,
        problem=problem,
        bundle=bundle.digest(),
        version=bundle.version,
        principal=principal,
        approvers=approvers,
        restores=bundle.rollback.version if bundle.rollback else None,
        reason=bundle.rollback.reason if bundle.rollback else None,
    )


def _problem_of(error: PolicyError) -> PolicyProblem:
    match error:
        case BundleUnderSigned():
            return PolicyProblem.UNDER_SIGNED
        case BundleForeign():
            return PolicyProblem.ANOTHER_SITE
        case BundleInvalid():
            return PolicyProblem.INVALID
        case _:
            return PolicyProblem.UNTRUSTED
