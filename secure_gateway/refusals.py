"""Refusals at a full door share a record: what comes while one is made durable has the next.

Past capacity there are many times as many refusals as answers. A durable record for each would take
from the models what they could answer with, so all that one caller asked the same of one model in the
milliseconds of one commit is counted in one record, and each is answered once that is durable.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from audit import Log, LogUnavailable
from audit.records import Action, Outcome, Problem, RefusalsRecord, encode
from policies import Principal, Role
from secure_gateway.counting import RequestCounters
from secure_gateway.exchange import Exchange
from secure_gateway.ids import new_id
from secure_gateway.problems import status_of

Reply = Callable[[str | None], None]
"""Takes where the record stands, `<origin>#<index>`, or None if it could not be made durable."""

_Alike = tuple[str, frozenset[Role], Action, str]


class _Group:
    __slots__ = ("began", "replies")

    def __init__(self) -> None:
        self.began = datetime.now(UTC)
        self.replies: list[Reply] = []


class SharedRefusals:
    """Gathers what is refused at a full door, records it, and has it answered."""

    def __init__(self, log: Log, counters: RequestCounters) -> None:
        self._log = log
        self._counters = counters
        self._open: dict[_Alike, _Group] = {}
        self._scheduled = False
        self._writing = 0

    def add(self, principal: Principal, action: Action, model: str, reply: Reply) -> None:
        """Count one refusal of a known caller; `reply` is called once its record is durable.

        `reply` must not raise: others wait behind it.
        """
        alike = (principal.id, principal.roles, action, model)
        group = self._open.get(alike)
        if group is None:
            group = self._open[alike] = _Group()
            if not self._scheduled and not self._writing:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._commit)
        group.replies.append(reply)

    async def record(self, exchange: Exchange) -> str:
        """Count the refusal of `exchange`; return where its record stands.

        Raises:
            LogUnavailable: if the record cannot be made durable; nothing may be answered then.
        """
        principal, model = exchange.principal, exchange.call.model
        if principal is None or model is None:
            message = "a door is full for a known caller and a registered model"
            raise AssertionError(message)
        recorded: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def reply(where: str | None) -> None:
            if not recorded.done():
                recorded.set_result(where)

        self.add(principal, exchange.call.action, model, reply)
        where = await recorded
        if where is None:
            raise LogUnavailable("the record of refusals could not be made durable")
        return where

    def _commit(self) -> None:
        self._scheduled = False
        groups, self._open = self._open, {}
        for alike, group in groups.items():
            record = _record_of(alike, group)
            try:
                appended = self._log.append(encode(record))
            except LogUnavailable:
                self._settle(record, group, None)
            else:
                self._writing += 1
                appended.add_done_callback(partial(self._written, record, group))

    def _written(self, record: RefusalsRecord, group: _Group, appended: "asyncio.Future[int]") -> None:
        self._writing -= 1
        failed = appended.cancelled() or appended.exception() is not None
        where = None if failed else f"{self._log.origin}#{appended.result()}"
        self._settle(record, group, where)
        if self._open and not self._writing and not self._scheduled:
            self._commit()

    def _settle(self, record: RefusalsRecord, group: _Group, where: str | None) -> None:
        if where is None:
            self._counters.unrecorded += record.count
        else:
            self._counters.count_refusals(record)
        for reply in group.replies:
            reply(where)


def _record_of(alike: _Alike, group: _Group) -> RefusalsRecord:
    principal, roles, action, model = alike
    return RefusalsRecord(
        time=group.began,
        until=datetime.now(UTC),
        id=new_id(),
        action=action,
        outcome=Outcome.FAILED,
        status=status_of(Problem.OVERLOADED),
        problem=Problem.OVERLOADED,
        principal=principal,
        roles=tuple(sorted(roles)),
        model=model,
        count=len(group.replies),
    )
