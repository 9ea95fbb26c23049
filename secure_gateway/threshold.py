"""Before the door: what a full door keeps out is refused by its head, its body is never looked at.

An HTTP server asks here once it has read a request's head. Only for callers whose token was verified
before, for POST, and for a model whose door is full; everything else takes the pipeline's road and is
refused there if need be. The record is the one that the pipeline's refusals have.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from audit.records import Action
from secure_gateway import respond
from secure_gateway.admission import Door
from secure_gateway.authenticate import Authenticator
from secure_gateway.refusals import SharedRefusals

Fields = tuple[tuple[bytes, bytes], ...]

Answering = Callable[[int, Fields, bytes], None]
"""Writes a response: its status, its header fields without the framing, and its body."""

_ACTIONS: Final = {"infer": Action.INFER, "infer_stream": Action.STREAM}
# Heads are looked at for so long after a door was last found full: one that lets in as many as leave is
# full again a moment later.
CROWDED_FOR_S: Final = 1.0

# "/v2/models/<name>/infer" and "/v2/models/<name>/versions/<version>/infer"
_PLAIN: Final = 5
_VERSIONED: Final = 7


class Threshold:
    """Refuses what would be refused at the door anyway, at the price of a look at its head."""

    def __init__(self, door: Door, authenticator: Authenticator, refusals: SharedRefusals) -> None:
        self._door = door
        self._authenticator = authenticator
        self._refusals = refusals
        self.crowded = door.crowded
        """The models whose door was full lately; while it is empty, there is nothing to ask."""
        # By model: who was let through in this turn of the loop, and is not at the door yet.
        self._on_their_way: dict[str, int] = {}
        self._kept: dict[str, int] = {}

    def refused_lately(self) -> bool:
        """Return whether the door of any model was found full within the last second."""
        since = time.monotonic() - CROWDED_FOR_S
        return any(at > since for at in self.crowded.values())

    def room(self, model: str) -> int:
        """Return how many more requests would be let in now, for a model that was asked for before."""
        return max(0, self._door.room(model) - self._on_their_way.get(model, 0))

    def keep(self, model: str, places: int) -> None:
        """Let in only those who are called, while no more than `places` are free."""
        self._kept[model] = places

    def turn_away(
        self,
        path: str,
        headers: Iterable[tuple[bytes, bytes]],
        answer: Answering,
        *,
        called: bool = False,
    ) -> str | None:
        """Refuse a POST to `path` if the door of its model is full, and return the model.

        `answer` is called once the refusal is recorded, or could not be. None: it is not refused here.
        A place may have been kept for whoever was `called`.
        """
        parts = path.split("/")
        action = _ACTIONS.get(parts[-1])
        if action is None or len(parts) not in (_PLAIN, _VERSIONED):
            return None
        model = parts[3]
        if parts[:3] != ["", "v2", "models"] or model not in self.crowded:
            return None
        if self.room(model) > (0 if called else self._kept.get(model, 0)):
            self._let_through(model)
            return None
        tokens = [value for name, value in headers if name == b"authorization"]
        principal = self._authenticator.remembered(tokens[0]) if len(tokens) == 1 else None
        if principal is None:
            return None
        wait_s = self._door.limits()[model].wait_s

        def reply(where: str | None) -> None:
            answer(*_refusal(where, wait_s))

        self.crowded[model] = time.monotonic()
        self._refusals.add(principal, action, model, reply)
        return model

    def _let_through(self, model: str) -> None:
        """Count a request that takes the pipeline's road, until it has come to the door there.

        Many are read in one turn of the loop, and come to the door in the next: were they not counted,
        all of them would be let through for the one place that is free.
        """
        if time.monotonic() - self.crowded[model] > CROWDED_FOR_S:
            del self.crowded[model]
            return
        if not self._on_their_way:
            asyncio.get_running_loop().call_soon(self._on_their_way.clear)
        self._on_their_way[model] = self._on_their_way.get(model, 0) + 1


@lru_cache(maxsize=64)
def _refusal(where: str | None, wait_s: int) -> tuple[int, Fields, bytes]:
    """Return the answer that all refusals of one record have."""
    if where is None:
        status, headers, body = respond.for_oip(respond.log_unavailable())
    else:
        refusal = Door.refusal(wait_s)
        status, headers, body = respond.for_oip(respond.refusal(refusal, record=where))
    return status, (*headers, (b"content-length", b"%d" % len(body))), body
