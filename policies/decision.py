"""What was decided of a request, complete enough to be recorded, explained and reviewed."""

from typing import Final

from msgspec import Struct

from policies.obligations import resolved
from policies.validation import PolicyText

DEFAULT_DENY: Final = "default-deny"
EVALUATION_ERROR: Final = "evaluation-error"
REVIEW: Final = "review"


class Verdict(Struct, frozen=True, kw_only=True):
    """What was decided of one candidate, and the policies that determined it."""

    placement: str
    permitted: bool
    policies: tuple[PolicyText, ...]


class Decision(Struct, frozen=True, kw_only=True):
    """Where a request may run.

    `policies` are the ids that determined it: those that permit a placement and those that exclude
    one (`default-deny` where no policy spoke); `citations` are theirs, without repeats.
    `obligations` are the union over the permits, with the names of the model's necessary outputs.
    """

    permitted: tuple[str, ...]
    obligations: tuple[str, ...]
    policies: tuple[str, ...]
    citations: tuple[str, ...]
    bundle_digest: str
    verdicts: tuple[Verdict, ...]

    @property
    def allowed(self) -> bool:
        """Whether anything is permitted at all."""
        return bool(self.permitted)

    @property
    def break_glass(self) -> bool:
        """Whether somebody must review afterwards why this was permitted."""
        return REVIEW in self.obligations


def failed_evaluation() -> PolicyText:
    """Return what stands for a policy that could not be evaluated, and so refuses."""
    return PolicyText(
        id=EVALUATION_ERROR,
        title="A policy could not be evaluated",
        citation="fail closed",
        effect="forbid",
        obligations=(),
        path="",
        line=0,
    )


def combine(
    verdicts: tuple[Verdict, ...], bundle_digest: str, necessary_outputs: tuple[str, ...] = ()
) -> Decision:
    """Return the decision that the verdicts on all candidates make together.

    `necessary_outputs` are those that the site named of the model (`policies.obligations.resolved`).
    """
    decisive = {text.id: text for verdict in verdicts for text in verdict.policies}
    texts = sorted(decisive.values(), key=lambda text: text.id)
    obligations = {
        name
        for verdict in verdicts
        if verdict.permitted
        for text in verdict.policies
        for name in text.obligations
    }
    return Decision(
        permitted=tuple(verdict.placement for verdict in verdicts if verdict.permitted),
        obligations=resolved(obligations, necessary_outputs),
        policies=tuple(text.id for text in texts) or (DEFAULT_DENY,),
        citations=tuple(dict.fromkeys(text.citation for text in texts)),
        bundle_digest=bundle_digest,
        verdicts=verdicts,
    )
