"""The door of the pipeline: a known caller is let in, or told at once when to come again."""

import time
from collections.abc import Callable, Mapping

from audit.records import Action, Problem
from policies import Principal
from secure_gateway.admission.break_glass import BreakGlassLimit
from secure_gateway.admission.callers import CallerLimits
from secure_gateway.admission.concurrency import ConcurrencyLimit
from secure_gateway.admission.settings import AdmissionSettings
from secure_gateway.errors import DoorFull, Refusal
from secure_gateway.exchange import Exchange

LIMITED = frozenset({Action.INFER, Action.STREAM, Action.PLACE, Action.SUBMIT})

_RUN_ELSEWHERE_OR_LATER = frozenset({Action.PLACE, Action.SUBMIT})


class Door:
    """Applies the limits of callers and models; both say when it is worth trying again."""

    def __init__(
        self,
        settings: AdmissionSettings,
        callers: CallerLimits,
        emergencies: BreakGlassLimit,
        registered: Callable[[str], bool],
    ) -> None:
        """`registered` says whether the site serves a model of this name."""
        self._settings = settings
        self._emergencies = emergencies
        self._callers = callers
        self._registered = registered
        self._models: dict[str, ConcurrencyLimit] = {}
        self.crowded: dict[str, float] = {}
        """The models whose door was found full, and when last, on the monotonic clock."""

    def check_caller(self, exchange: Exchange) -> None:
        """See that a caller may ask, before what it sends is read; nothing is counted.

        Raises:
            Refusal: rate-limited, with the time after which to try again.
        """
        principal = _known(exchange)
        wait_s = self._callers.wait_s(principal.id, principal.roles)
        if wait_s is not None:
            raise _asked_enough(wait_s)

    def enter(self, exchange: Exchange) -> ConcurrencyLimit | None:
        """Let a request in; what is returned must be left when it ends.

        Raises:
            Refusal: rate-limited or overloaded, with the time after which to try again.
        """
        principal = _known(exchange)
        limit = self._limit_of(exchange)
        # First: what is not served counts for nobody.
        if limit is not None and limit.full:
            self.crowded[exchange.call.model or ""] = time.monotonic()
            raise self.refusal(limit.wait_s)
        wait_s = self._callers.take(principal.id, principal.roles)
        if wait_s is not None:
            raise _asked_enough(wait_s)
        if limit is not None:
            limit.enter()
        return limit

    def _limit_of(self, exchange: Exchange) -> ConcurrencyLimit | None:
        model = exchange.call.model
        if model is None or exchange.call.action in _RUN_ELSEWHERE_OR_LATER:
            return None
        limit = self._models.get(model)
        if limit is None and self._registered(model):
            # Names that the site does not serve are refused further on, and fill no memory here.
            limit = self._models[model] = ConcurrencyLimit(self._settings)
        return limit

    @staticmethod
    def refusal(wait_s: int) -> DoorFull:
        """Return what is told to a request that finds the door full."""
        return DoorFull(
            Problem.OVERLOADED,
            "As many requests for the model are under way as it can answer in time.",
            retry_after_s=wait_s,
        )

    def room(self, model: str) -> int:
        """Say how many more requests for `model`, which was asked for before, would be let in now."""
        return self._models[model].room

    def count_emergency(self, exchange: Exchange) -> None:
        """Count a decided request if it breaks the glass.

        Raises:
            Refusal: rate-limited, if its caller did so too often in the last hour.
        """
        principal, decision = exchange.principal, exchange.decision
        if principal is None or decision is None or not decision.break_glass:
            return
        if exchange.call.kept and exchange.call.action is Action.INFER:
            # The run of work, which counted when it was submitted.
            return
        wait_s = self._emergencies.take(principal.id)
        if wait_s is not None:
            raise Refusal(
                Problem.RATE_LIMITED,
                "This caller declared as many emergencies in the last hour as the site allows; "
                "ask somebody else to, and tell the site's compliance officer.",
                retry_after_s=wait_s,
            )

    def limits(self) -> Mapping[str, ConcurrencyLimit]:
        """Return the limit of each model that was asked for."""
        return self._models


def _known(exchange: Exchange) -> Principal:
    if exchange.principal is None:
        message = "callers are let in once they are known"
        raise AssertionError(message)
    return exchange.principal


def _asked_enough(wait_s: int) -> Refusal:
    return Refusal(
        Problem.RATE_LIMITED,
        "This caller has asked for as much as the site allows it; try again later.",
        retry_after_s=wait_s,
    )
