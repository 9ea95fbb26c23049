"""Whether what was run with somebody's consent may still be handed over."""

from msgspec import structs

from audit.records import Problem
from policies import Candidate, Engine, Facts, explain
from secure_gateway.consent.grants import Standing, Use
from secure_gateway.consent.store import ConsentRegistry, ConsentUnavailable
from secure_gateway.errors import Refusal

RETRY_AFTER_S = 2


class Reconsideration:
    """Looks again at a kept result when it is fetched: a withdrawal counts from the next request on."""

    def __init__(self, registry: ConsentRegistry | None, engine: Engine) -> None:
        self._registry = registry
        self._engine = engine

    async def withdrawn(
        self,
        subject: str | None,
        facts: Facts | None,
        candidates: tuple[Candidate, ...],
        placement: str | None,
    ) -> Refusal | None:
        """Return why a result may not be handed over any more, or None.

        It may where its person's consent was not withdrawn since, or where policy permits the place
        where it ran without any.

        Raises:
            Refusal: consent-unavailable, if that cannot be said now; the result waits.
        """
        if self._registry is None or subject is None or facts is None or not facts.consent:
            return None
        use = Use(facts.purpose, facts.model, facts.data_class)
        try:
            known = await self._registry.standing(subject, use)
        except ConsentUnavailable as error:
            raise Refusal(
                Problem.CONSENT_UNAVAILABLE,
                "Whether the person still consents cannot be said now; try again.",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        if known is not Standing.WITHDRAWN:
            return None
        without = structs.replace(facts, consent=False)
        decision = self._engine.decide(without, candidates)
        if placement in decision.permitted:
            return None
        return Refusal(
            Problem.POLICY_REFUSED,
            f"Consent was withdrawn since it was run, and nothing of it is kept. "
            f"{explain(decision, without)}",
            policies=decision.policies,
            citations=decision.citations,
        )
