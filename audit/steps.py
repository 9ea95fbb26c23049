"""Records of what is done with policy bundles, made where the steps are taken."""

from datetime import UTC, datetime
from uuid import uuid4

from audit.records import PolicyOutcome, PolicyProblem, PolicyRecord, PolicyStep, RollbackReason


def step_record(
    step: PolicyStep,
    *,
    problem: str | None = None,
    bundle: str | None = None,
    version: int | None = None,
    principal: str | None = None,
    approvers: tuple[str, ...] = (),
    restores: int | None = None,
    reason: str | None = None,
) -> PolicyRecord:
    """Return the record of a step that is taken now; with a `problem`, of its refusal.

    Raises:
        ValueError: if `problem` or `reason` is none of the closed set.
    """
    return PolicyRecord(
        time=datetime.now(UTC),
        id=uuid4(),
        step=step,
        outcome=PolicyOutcome.DONE if problem is None else PolicyOutcome.REFUSED,
        problem=None if problem is None else PolicyProblem(problem),
        bundle=bundle,
        version=version,
        principal=principal,
        approvers=approvers,
        restores=restores,
        reason=None if reason is None else RollbackReason(reason),
    )
