"""Stage 3, whether and where: ask the policies about every place that could run the request."""

from collections.abc import Sequence

from audit.records import Problem
from policies import ApiAction, Candidate, Engine, PlacementKind, explain
from secure_gateway.directory import DeviceDirectory
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Exchange
from secure_gateway.shadow import Shadow


class Decider:
    """Gathers the candidate placements of a request and has the engine decide.

    The candidates are the site's nodes and, where a registered device holds the subject's data,
    that device. A candidate bundle in the `shadow` decides too, without effect.
    """

    def __init__(
        self,
        engine: Engine,
        nodes: Sequence[Candidate],
        directory: DeviceDirectory,
        shadow: Shadow,
    ) -> None:
        self._engine = engine
        self._shadow = shadow
        self._nodes = tuple(nodes)
        self._directory = directory

    def decide(self, exchange: Exchange) -> None:
        """Set `decision` of `exchange`, also when it refuses, so that the record can say why.

        Raises:
            Refusal: policy-refused, with the policies and citations that determined it.
        """
        facts = exchange.facts
        if facts is None:
            message = "a decision is made on facts"
            raise AssertionError(message)
        candidates = self._nodes
        if exchange.holder is not None:
            candidates = (*candidates, self._device(exchange.holder))
        exchange.candidates = candidates
        decision = self._engine.decide(facts, candidates)
        exchange.decision = decision
        exchange.shadow = self._shadow.decide(facts, candidates)
        if not decision.permitted:
            raise Refusal(
                Problem.POLICY_REFUSED,
                explain(decision, facts),
                policies=decision.policies,
                citations=decision.citations,
            )

    def authorize(self, exchange: Exchange, action: ApiAction) -> None:
        """Decide an API action that moves no payload, such as reading a model's metadata.

        Raises:
            Refusal: policy-refused.
        """
        principal = exchange.principal
        if principal is None:
            message = "authorization follows authentication"
            raise AssertionError(message)
        decision = self._engine.authorize(principal.caller, action)
        exchange.decision = decision
        if not decision.allowed:
            raise Refusal(
                Problem.POLICY_REFUSED,
                f"None of the caller's roles may do {action.value}.",
                policies=decision.policies,
                citations=decision.citations,
            )

    def _device(self, placement: str) -> Candidate:
        return Candidate(
            placement=placement,
            kind=PlacementKind.DEVICE,
            jurisdiction=self._directory.jurisdiction_of(placement) or "",
            holds_subject=True,
        )
