"""Shadow mode: a candidate bundle decides beside the one in force, and changes nothing.

What it would have decided otherwise goes into the request's record. It costs a look-up where it decided
the like before; what it has to work out is limited for each second, and past that it is left out. A
candidate that fails is let go: it never costs a request its answer.
"""

import asyncio
import hashlib
import logging
import time
from typing import Final

from audit.records import DecisionChange, ShadowDifference
from policies import (
    Approvers,
    Candidate,
    Decision,
    Engine,
    Facts,
    PolicyError,
    changes,
)
from policies.cache import LruCache

logger = logging.getLogger(__name__)

# At 0.2 ms each, 4 % of a core at most.
WORKED_OUT_PER_S: Final = 200
FAILURES_MAX: Final = 10
REMEMBERED: Final = 16384


class Shadow:
    """Decides by a candidate, where there is one.

    `worked_out`, `left_out` and `failed` count decisions since the candidate was taken.
    """

    def __init__(self, approvers: Approvers, *, worked_out_per_s: int = WORKED_OUT_PER_S) -> None:
        self.worked_out = 0
        self.left_out = 0
        self.failed = 0
        self._approvers = approvers
        self._per_s = worked_out_per_s
        self._engine: Engine | None = None
        self._decisions: LruCache[object, Decision] = LruCache(REMEMBERED)
        self._second = 0
        self._this_second = 0
        self._looked_at = b""

    @property
    def bundle_digest(self) -> str | None:
        """The candidate's digest; None where there is none."""
        return None if self._engine is None else self._engine.bundle_digest

    async def offer(self, document: bytes) -> None:
        """Let what `document` holds decide in the shadow from now on; nothing if it is empty."""
        seen = hashlib.sha256(document).digest()
        if seen == self._looked_at:
            return
        self._looked_at = seen
        engine = None
        if document:
            try:
                engine = await asyncio.to_thread(self._load, document)
            except PolicyError as error:
                logger.warning("shadow candidate refused: %s", error)
        self._take(engine)

    def decide(self, facts: Facts, candidates: tuple[Candidate, ...]) -> Decision | None:
        """Return what the candidate decides; None where there is none, or it had no time."""
        engine = self._engine
        if engine is None:
            return None
        key = (facts, candidates)
        decision = self._decisions.get(key)
        if decision is not None:
            return decision
        if not self._has_time():
            self.left_out += 1
            return None
        try:
            decision = engine.decide(facts, candidates)
        except Exception as error:  # noqa: BLE001 whatever is wrong with it, the request is served
            self._fail(error)
            return None
        self.worked_out += 1
        self._decisions.put(key, decision)
        return decision

    def _load(self, document: bytes) -> Engine:
        return Engine(self._approvers.verify(document, threshold=1))

    def _take(self, engine: Engine | None) -> None:
        self._engine = engine
        self._decisions = LruCache(REMEMBERED)
        self.worked_out = self.left_out = self.failed = 0

    def _has_time(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._this_second = second, 0
        self._this_second += 1
        return self._this_second <= self._per_s

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if self.failed >= FAILURES_MAX:
            logger.warning("shadow candidate let go after %d failures: %s", self.failed, type(error))
            self._engine = None


def difference(
    decision: Decision | None, shadow: Decision | None, placement: str | None
) -> ShadowDifference | None:
    """Return how `shadow` differs from what was decided; None where it does not."""
    if decision is None or shadow is None:
        return None
    found = changes(
        shadow,
        permitted=decision.allowed,
        obligations=decision.obligations,
        placement=placement,
    )
    if not found:
        return None
    return ShadowDifference(
        bundle=shadow.bundle_digest, changes=tuple(DecisionChange(change.value) for change in found)
    )
