"""Questions about policies, as the API asks them; every one takes a while, so none is asynchronous."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from audit import VerificationError
from audit.records import PolicyProblem, PolicyStep
from audit.reports import LogSource
from coordinator.errors import PolicyRefused
from coordinator.policy.desk import PolicyDesk
from coordinator.policy.gate import Examination, check, run_proofs, run_tests
from coordinator.policy.recorded import Period, ReplayRun, ShadowReport, replay_logs, report_shadow
from coordinator.questions import ExplainQuestion
from policies import (
    Bundle,
    BundleInvalid,
    Candidate,
    Facts,
    PlacementKind,
    PolicyError,
    read_draft,
    why,
)
from policies.proofs import changed_data, describe, differences, explain_request

IN_FORCE: Final = "in-force"
REGIONS_MAX: Final = 100


class Tools:
    """Answers questions about the drafts that wait, and about what is in force."""

    def __init__(
        self,
        desk: PolicyDesk,
        sources: Callable[[], list[LogSource]],
        in_force: Callable[[], bytes],
    ) -> None:
        self._desk = desk
        self._sources = sources
        self._in_force = in_force
        self.examinations: dict[PolicyStep, Callable[[Bundle], Examination]] = {
            PolicyStep.CHECK: check,
            PolicyStep.TEST: run_tests,
            PolicyStep.PROVE: run_proofs,
        }

    def find(self, digest: str) -> Bundle:
        """Return the draft with this digest, or what is in force.

        Raises:
            PolicyRefused: if there is no such draft.
        """
        if digest == IN_FORCE:
            return read_draft(self._in_force())
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise PolicyRefused(PolicyProblem.UNKNOWN, "no draft of this digest waits here")
        return read_draft(self._desk.find(digest))

    def status(self) -> dict[str, Any]:
        """Say what is in force, who approves, what waits, and every step that was taken."""
        document = self._in_force()
        bundle = read_draft(document)
        approvers = self._desk.approvers
        return {
            "version": bundle.version,
            "digest": bundle.digest(),
            "signed_by": approvers.names_on(document),
            "approvers": sorted(approvers.keys),
            "threshold": approvers.threshold,
            "drafts": [
                {"version": draft.version, "digest": draft.digest(), "signed_by": names}
                for draft, names in self._desk.drafts()
            ],
            "steps": [
                {
                    "time": step.time,
                    "step": step.step,
                    "version": step.version,
                    "digest": step.bundle,
                    "approvers": step.approvers,
                    "principal": step.principal,
                    "problem": step.problem,
                    "restores": step.restores,
                    "reason": step.reason,
                }
                for step in self._desk.ledger.read()
            ],
        }

    def explain(self, bundle: Bundle, question: ExplainQuestion) -> dict[str, Any]:
        """Decide a made-up request under `bundle` and say why.

        Raises:
            PolicyRefused: if the bundle does not validate.
        """
        facts = Facts(
            roles=frozenset(question.roles),
            kind=question.kind,
            site=question.site,
            organisation=question.organisation,
            model=question.model,
            jurisdiction=question.jurisdiction,
            data_class=question.data_class,
            purpose=question.purpose,
            consent=question.consent,
            emergency=question.emergency,
            on_device=question.on_device,
            own_device=question.own_device,
            carries_payload=question.carries_payload,
        )
        candidates = tuple(
            Candidate(**place.model_dump(), kind=PlacementKind(place.placement.partition(":")[0]))
            for place in question.candidates
        )
        try:
            found = explain_request(bundle, facts, candidates)
        except PolicyError as error:
            raise PolicyRefused(PolicyProblem.INVALID, str(error)) from error
        decision = found.decision
        return {
            "permitted": decision.permitted,
            "obligations": decision.obligations,
            "policies": decision.policies,
            "citations": decision.citations,
            "explanation": found.sentence,
            "verdicts": [
                {"placement": one.placement, "permitted": one.permitted, "because": why(one)}
                for one in decision.verdicts
            ],
            "looked_at": found.looked_at,
            "mattered": [
                {"if": str(one.change), "permitted": one.permitted, "obligations": one.obligations}
                for one in found.mattered
            ],
            "flips": [[str(change) for change in flip] for flip in found.flips],
        }

    def diff(self, bundle: Bundle) -> dict[str, Any]:
        """Return every class of facts that `bundle` decides otherwise than what is in force.

        Raises:
            PolicyRefused: if the bundle does not validate, or holds what cannot be compared.
        """
        try:
            active = read_draft(self._in_force())
            found = differences(active, bundle)
        except PolicyError as error:
            raise PolicyRefused(PolicyProblem.INVALID, str(error)) from error
        return {
            "changes": [
                {
                    "before": str(change.before),
                    "after": str(change.after),
                    "before_policies": change.before_policies,
                    "after_policies": change.after_policies,
                    "api": change.api,
                    "combinations": change.combinations,
                    "classes": [describe(region) for region in change.regions[:REGIONS_MAX]],
                    "more_classes": max(0, len(change.regions) - REGIONS_MAX),
                }
                for change in found
            ],
            "data": changed_data(active, bundle),
        }

    def replay(self, bundle: Bundle, since: datetime | None, until: datetime | None) -> ReplayRun:
        """Decide recorded requests again under `bundle`.

        Raises:
            PolicyRefused: if the bundle does not validate, or a log does not verify.
        """
        try:
            return replay_logs(self._sources(), bundle, Period(since=since, until=until))
        except BundleInvalid as error:
            raise PolicyRefused(PolicyProblem.INVALID, str(error)) from error
        except VerificationError as error:
            raise PolicyRefused(PolicyProblem.UNTRUSTED, str(error)) from error

    def shadow_report(self) -> ShadowReport:
        """Say what the last candidate would have decided otherwise since it began.

        Raises:
            PolicyRefused: if there never was one, or a log does not verify.
        """
        steps = self._desk.ledger.read()
        started = [step for step in steps if step.step is PolicyStep.SHADOW_START and not step.problem]
        if not started or started[-1].bundle is None:
            raise PolicyRefused(PolicyProblem.UNKNOWN, "no candidate ever decided in the shadow")
        try:
            period = Period(since=started[-1].time)
            return report_shadow(self._sources(), started[-1].bundle, period)
        except VerificationError as error:
            raise PolicyRefused(PolicyProblem.UNTRUSTED, str(error)) from error
