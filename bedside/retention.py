"""What a site keeps and prunes: holds and decisions go into its log of retention, then into effect."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from audit import Log, LogBusy, LogUnavailable
from audit.errors import PruneRefused
from audit.index import RecordIndex, catch_up
from audit.minimum import bundles_remain, read_minimum
from audit.publish import CHECKPOINT
from audit.records import AnyRecord, HoldChange, HoldRecord, HoldScope, PruneRecord, decode, encode
from audit.reports import LogSource
from audit.retention import Hold, PrunePlan, active_holds, newest_record, plan_pruning
from bedside.site import KEPT_WHOLE, RETENTION, Site
from secure_gateway.ids import new_id

# A clock that is years ahead would make everything old: a site that works has a record of this month.
APART_MAX: Final = timedelta(days=30)
TAKEN_UP_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1
BUSY_TRIES: Final = 200
BUSY_WAIT_S: Final = 0.05


class Retention:
    """Plans, decides and carries out what a site prunes, and what it holds."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def holds(self) -> list[Hold]:
        """Return the holds in force, oldest first; blocking.

        Raises:
            VerificationError: if the log of retention does not verify.
        """
        return active_holds(self._site.prune_orders().records())

    def plans(self, holds: Sequence[Hold]) -> list[PrunePlan]:
        """Return what may go of each log that is not kept whole; blocking.

        Raises:
            PruneRefused: if the clock cannot be right.
            VerificationError: if a log does not verify.
        """
        sources = self._sources()
        now = datetime.now(UTC)
        records = [newest_record(source) for source in sources]
        newest = max((record.time for record in records if record is not None), default=now)
        if abs(now - newest) > APART_MAX:
            raise PruneRefused(
                f"the newest record of this site is of {newest:%Y-%m-%d}, and the clock says "
                f"{now:%Y-%m-%d}: while these are over {APART_MAX.days} days apart, age says nothing"
            )
        days = self._site.config.audit.retention.days
        exported: dict[str, int] = {}
        for state in self._site.export_states():
            exported[state.log] = min(state.next, exported.get(state.log, state.next))
        return [
            plan_pruning(source, holds, days=days, now=now, exported=exported.get(source.verifier.name))
            for source in sources
            if source.folder.name not in KEPT_WHOLE
        ]

    async def place(self, reference: str, scope: HoldScope, principal: str) -> str:
        """Place a hold; return where its record stands.

        Raises:
            PruneRefused: if there is one of that reference, or it names something that no record holds.
            LogUnavailable, LogBusy: if it cannot be recorded; it is not in force then.
        """

        def made(holds: Sequence[Hold]) -> HoldRecord:
            if any(hold.reference == reference for hold in holds):
                raise PruneRefused(f"there is a hold {reference} already; release it first")
            return HoldRecord(
                time=datetime.now(UTC),
                id=new_id(),
                change=HoldChange.PLACED,
                reference=reference,
                scope=scope,
                principal=principal,
            )

        return await self._record_hold(made)

    async def release(self, reference: str, principal: str) -> str:
        """Release a hold; return where its record stands.

        Raises:
            PruneRefused: if there is none.
            LogUnavailable, LogBusy: if it cannot be recorded; the hold stays in force then.
        """

        def made(holds: Sequence[Hold]) -> HoldRecord:
            found = next((hold for hold in holds if hold.reference == reference), None)
            if found is None:
                raise PruneRefused("there is no such hold; `bedside audit hold list` shows all")
            return HoldRecord(
                time=datetime.now(UTC),
                id=found.id,
                change=HoldChange.RELEASED,
                reference=found.reference,
                scope=found.scope,
                principal=principal,
            )

        return await self._record_hold(made)

    async def decide(self, principal: str) -> list[str]:
        """Record what is pruned from now on; return where these records stand.

        What may go is looked up while the log of retention is locked: no hold comes between.

        Raises:
            PruneRefused, VerificationError: as `plans`.
            LogUnavailable, LogBusy: if it cannot be recorded; nothing is pruned then.
        """
        decisions = []
        log = await self._open()
        try:
            plans = await asyncio.to_thread(lambda: self.plans(self.holds()))
            for plan in plans:
                if plan.records and plan.newest is not None:
                    decision = PruneRecord(
                        time=datetime.now(UTC),
                        id=new_id(),
                        log=plan.origin,
                        minimum_index=plan.target,
                        newest=plan.newest,
                        days=self._site.config.audit.retention.days,
                        principal=principal,
                    )
                    decisions.append(f"{log.origin}#{await log.append(_valid(decision))}")
        finally:
            await log.close()
        return decisions

    async def carry_out(self, index: RecordIndex, waits: Callable[[str], None]) -> int:
        """Have every log pruned by whoever writes it, then the search index; return how many went.

        `waits` is told each log that another process has open, and that is waited for.

        Raises:
            LogUnavailable: if one is not pruned yet; it is tried again, at the latest by the next call.
        """
        orders = self._site.prune_orders()
        gone = 0
        for source in self._sources():
            if source.folder.name in KEPT_WHOLE:
                continue
            order = await asyncio.to_thread(orders.order, source.verifier.name)
            wanted = 0 if order is None else order.index
            before = read_minimum(source.folder, source.verifier).index
            try:
                await self._open_and_close(source)
            except LogBusy:
                if wanted > before:
                    waits(source.verifier.name)
                await _taken_up(source, wanted)
            after = read_minimum(source.folder, source.verifier).index
            if after < wanted or bundles_remain(source.folder, after):
                raise LogUnavailable(f"{source.verifier.name} is not pruned yet; it is tried again")
            gone += after - before
        await catch_up(index, self._sources())
        return gone

    def _sources(self) -> list[LogSource]:
        sources = self._site.log_sources()
        return [source for source in sources if (source.folder / CHECKPOINT).is_file()]

    async def _open_and_close(self, source: LogSource) -> None:
        """Let the log take up what was decided."""
        log = await self._site.open_log(source.folder.name)
        await log.close()

    async def _record_hold(self, make: Callable[[Sequence[Hold]], HoldRecord]) -> str:
        log = await self._open()
        try:
            record = make(await asyncio.to_thread(self.holds))
            return f"{log.origin}#{await log.append(_valid(record))}"
        finally:
            await log.close()

    async def _open(self) -> Log:
        for _ in range(BUSY_TRIES):
            try:
                return await self._site.open_log(RETENTION)
            except LogBusy:
                await asyncio.sleep(BUSY_WAIT_S)
        return await self._site.open_log(RETENTION)


def _valid(record: AnyRecord) -> bytes:
    leaf = encode(record)
    try:
        decode(leaf)
    except msgspec.ValidationError as error:
        raise PruneRefused(
            "a reference is 1 to 4 capital letters and numbers, such as LH-2026-0042, and what a hold "
            "names is an identifier as records have it: a log, a model, a principal or a pseudonym"
        ) from error
    return leaf


async def _taken_up(source: LogSource, index: int) -> None:
    deadline = time.monotonic() + TAKEN_UP_WITHIN_S
    while time.monotonic() < deadline:
        done = read_minimum(source.folder, source.verifier).index
        if done >= index and not bundles_remain(source.folder, done):
            return
        await asyncio.sleep(LOOK_EVERY_S)
