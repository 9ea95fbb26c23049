"""Stage 4, where: choose one of the permitted placements, and never any other."""

from collections.abc import Mapping

from audit.records import Problem
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Exchange
from secure_gateway.models import ModelIndex
from secure_gateway.nodes import SiteNode

RETRY_AFTER_S = 2


class Router:
    """Picks the placement of a request inside its decision's permitted set.

    The device that holds the data is preferred where it is permitted: the payload then moves
    nowhere (GDPR Art. 5(1)(c), data minimisation). Among nodes, the ready one with the least
    outstanding work wins, of those that have as little the one that was chosen longest ago. A node that
    kept failing is passed over, unless there is no other.
    """

    def __init__(self, nodes: Mapping[str, SiteNode], models: ModelIndex) -> None:
        self._nodes = nodes
        self._models = models
        self._chosen = 0

    def route(self, exchange: Exchange) -> None:
        """Set `placement` of `exchange`, and `model` to what is served there, with its own digest.

        Raises:
            Refusal: node-unreachable, if no permitted node is ready to serve the model.
        """
        decision, model = exchange.decision, exchange.model
        if decision is None or model is None:
            message = "routing follows a decision"
            raise AssertionError(message)
        request = exchange.request
        best: SiteNode | None = None
        found = model
        for placement in decision.permitted:
            node = self._nodes.get(placement)
            if node is None:
                if request is None or not request.carries_tensors:
                    exchange.placement = placement
                    return
            elif (
                node.ready
                and (served := self._models.served(placement, model)) is not None
                and placement not in exchange.attempted
                and (best is None or _better(node, best))
            ):
                best, found = node, served
        if best is None:
            raise Refusal(
                Problem.NODE_UNREACHABLE,
                "The nodes that policy permits do not serve this model right now; try again.",
                retry_after_s=RETRY_AFTER_S,
            )
        self._chosen += 1
        best.chosen = self._chosen
        exchange.placement, exchange.model = best.placement, found


def _better(node: SiteNode, than: SiteNode) -> bool:
    return (node.health.ejected, node.outstanding, node.chosen) < (
        than.health.ejected,
        than.outstanding,
        than.chosen,
    )
