"""A request head that the same connection sent just before is not parsed a second time.

A client that asks again sends the same request line and the same fields, byte for byte; reading them
anew is a tenth of a small request. What is equal in every byte means the same, so the first reading is
taken again: for a POST whose body has a stated length and came whole, with its head and nothing else.
All else, be it one byte that differs, goes to the parser as before.

The connections of one client send one head, and share what is known of it: a thousand copies would
not fit into the processor's caches. It is forgotten with the last connection that sent it, since it may
hold a token.

What is known of a head is kept with it in `NOTES` of the scope, which all requests with this head
share. Whoever puts something there may only rely on the bytes of the head: not on the time, nor on
anything that may change between two requests or two connections.
"""

from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

from bedside.http_cycle import Cycle
from bedside.http_protocol import WholeResponseProtocol

NOTES: Final = "bedside.notes"
HEAD_END: Final = b"\r\n\r\n"

# Heads that change with every request are not looked at for ever.
LEARNT_IN_VAIN_MAX: Final = 16

_LINE_BEGINS: Final = b"POST "
_HOW_TO_READ: Final = (b"transfer-encoding", b"expect", b"upgrade", b"trailer")


class KnownHead:
    """A head, how long a request with it is, and the scope that it was read as.

    The scope is that of whoever sent the head first; where a request comes from is its connection's.
    """

    __slots__ = ("__weakref__", "head", "length", "scope")

    def __init__(self, head: bytes, body_bytes: int, scope: Mapping[str, Any]) -> None:
        self.head = head
        self.length = len(head) + body_bytes
        self.scope: dict[str, Any] = {**scope, NOTES: {}}

    @classmethod
    def learn(cls, data: bytes, body_bytes: int, scope: Mapping[str, Any]) -> "KnownHead | None":
        """Return the head of the one request that `data` is; None where it is anything else."""
        head = data[: len(data) - body_bytes]
        if not head.startswith(_LINE_BEGINS) or head.find(HEAD_END) != len(head) - len(HEAD_END):
            return None
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if lengths != [b"%d" % body_bytes] or scope["http_version"] != "1.1":
            return None
        for name, value in scope["headers"]:
            if name in _HOW_TO_READ or (name == b"connection" and value.lower() != b"keep-alive"):
                return None
        return cls(head, body_bytes, scope)


class KnownHeads:
    """The heads that the connections of one server sent last."""

    def __init__(self) -> None:
        self._heads: WeakValueDictionary[bytes, KnownHead] = WeakValueDictionary()

    def __len__(self) -> int:
        """Return how many different ones there are."""
        return len(self._heads)

    def shared(self, known: KnownHead) -> KnownHead:
        """Return what is known of the same head already, else `known`, which others then share."""
        return self._heads.setdefault(known.head, known)


class KnownHeadProtocol(WholeResponseProtocol):
    """Serves one connection, and knows the head of its last request again."""

    known: KnownHead | None = None
    in_vain = 0

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 uvicorn's own
        heads: KnownHeads | None = None,
        **named: Any,  # noqa: ANN401 uvicorn's own
    ) -> None:
        super().__init__(*args, **named)
        self.heads = KnownHeads() if heads is None else heads

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        cycle = self.cycle
        between = cycle is None or (
            cycle.response_complete and not cycle.more_body and not self.in_head and not self.pipeline
        )
        known = self.known
        if between and known is not None:
            if len(data) == known.length and data.startswith(known.head):
                self.in_vain = 0
                self._take(known, data)
                return
            self.in_vain += 1
        super().data_received(data)
        if between and self.in_vain < LEARNT_IN_VAIN_MAX:
            cycle = self.cycle
            if cycle is not None and not cycle.more_body and not self.in_head and not self.pipeline:
                known = KnownHead.learn(data, self.body_bytes, cycle.scope)
                self.known = None if known is None else self.heads.shared(known)

    def _take(self, known: KnownHead, data: bytes) -> None:
        """Begin the request that `data` is, as the parser's callbacks would."""
        self.due = None
        self.unread = self.expect_100_continue = False
        scope = known.scope.copy()
        scope["client"], scope["server"] = self.client, self.server
        self.scope = scope  # type: ignore[assignment]
        self.headers = scope["headers"] = scope["headers"].copy()
        keep_alive = not self.stop.is_set()
        self.cycle = cycle = Cycle(self, self.message_event, scope, keep_alive=keep_alive)
        cycle.more_body = False
        cycle.body = data[len(known.head) :]
        threshold = self.threshold
        if threshold is None or not threshold.crowded or not self._turned_away(threshold, cycle):
            self._begin(cycle)
