"""What may be pruned: only whole bundles whose every record is past its retention and on no hold.

Seen to fail: with the last `keeps` of a bundle instead of the longest, with `held` left out, with the
record's own time in place of the running one, and with an order that outlives a later hold.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_writers import KEY, ORIGIN

from audit import Log, NoteVerifier
from audit.records import (
    Action,
    ConsentScope,
    HoldChange,
    HoldRecord,
    HoldScope,
    Outcome,
    Problem,
    PruneRecord,
    RefusalsRecord,
    RequestRecord,
    ReviewRecord,
    ReviewVerdict,
    decode,
    encode,
)
from audit.reports import KINDS, Filters, build_report
from audit.reports.document import notes_of
from audit.retention import (
    Hold,
    PruneOrder,
    PruneOrders,
    Reason,
    active_holds,
    newest_record,
    plan_pruning,
)
from audit.source import LogSource

VERIFIER = NoteVerifier(ORIGIN, KEY.public_key())
RETENTION = "clinic/retention"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
DAYS = 2192
OLD = NOW - timedelta(days=DAYS + 10)


def request(number, **fields):
    stated = {"time": OLD, "action": Action.INFER, "outcome": Outcome.SERVED, "status": 200}
    return RequestRecord(id=UUID(int=number), **{**stated, **fields})


def write(folder, records, origin=ORIGIN):
    async def append():
        log = await Log.open(folder, origin=origin, key=KEY)
        await asyncio.gather(*(log.append(encode(record)) for record in records))
        await log.close()

    asyncio.run(append())
    return LogSource(folder=folder, verifier=NoteVerifier(origin, KEY.public_key()))


def hold(**scope):
    return Hold(id=UUID(int=1), reference="LH-1", scope=HoldScope(**scope), principal="c.o", placed=NOW)


def plan(source, *holds, days=DAYS):
    return plan_pruning(source, holds, days=days, now=NOW)


def test_whole_bundles_go_until_the_first_record_that_must_stay(tmp_path):
    records = [request(n) for n in range(1200)]
    records[900] = request(900, obligations=("no_cache", "retain(3000)"))
    source = write(tmp_path, records)
    found = plan(source)
    assert (found.minimum, found.target, found.records, found.behind) == (0, 768, 768, 0)
    assert found.newest == OLD
    assert found.keeps.reason is Reason.RETENTION
    assert (found.keeps.number, found.keeps.until) == (900, OLD + timedelta(days=3000))
    # Once that one is past its time as well, the last bundle stays because it is not full.
    later = plan_pruning(source, [], days=DAYS, now=NOW + timedelta(days=1000))
    assert (later.target, later.keeps.reason) == (1024, Reason.INCOMPLETE)
    # Of those that keep a bundle, the one that does so longest is named.
    found = plan_pruning(source, [], days=3001, now=NOW)
    assert (found.target, found.keeps.number) == (0, 0)
    records[3] = request(3, obligations=("retain(4000)",))
    found = plan_pruning(write(tmp_path / "other", records), [], days=3000, now=NOW)
    assert (found.target, found.keeps.number) == (0, 3)
    assert found.keeps.until == OLD + timedelta(days=4000)


@pytest.mark.parametrize(
    ("fields", "kept_days"),
    [
        ({"obligations": ("retain(30)",)}, DAYS),
        ({"obligations": ("retain(4000)", "review", "retain(5000)")}, 5000),
        ({"obligations": ("outputs(retain)",)}, DAYS),
        (
            {"scope": ConsentScope(grants=(UUID(int=1),), expires=OLD + timedelta(days=900))},
            900 + DAYS,
        ),
    ],
)
def test_a_record_is_kept_for_the_longest_that_anything_asks_for(tmp_path, fields, kept_days):
    source = write(tmp_path, [request(n, **(fields if n == 17 else {})) for n in range(256)])
    end = OLD + timedelta(days=kept_days)
    moment = timedelta(microseconds=1)
    for now, target in ((end - moment, 0), (end, 256)):
        assert plan_pruning(source, [], days=DAYS, now=now).target == target


def test_a_clock_that_was_behind_makes_no_record_old(tmp_path):
    records = [request(n) for n in range(512)]
    behind = datetime(1970, 1, 1, tzinfo=UTC)
    records[300] = request(300, time=behind, obligations=("retain(4000)",))
    source = write(tmp_path, records)
    found = plan(source)
    assert (found.target, found.keeps.until) == (256, OLD + timedelta(days=4000))
    assert newest_record(source).id == UUID(int=511)


def test_refusals_that_share_a_record_are_kept_from_the_last_on(tmp_path):
    shared = RefusalsRecord(
        time=OLD, id=UUID(int=1), action=Action.INFER, outcome=Outcome.REFUSED, status=429,
        problem=Problem.OVERLOADED, principal="app-1", model="m", until=NOW, count=3,
    )  # fmt: skip
    source = write(tmp_path, [shared, *(request(n) for n in range(255))])
    assert plan(source).target == 0


@pytest.mark.parametrize(
    ("scope", "held"),
    [
        ({}, True),
        ({"models": ("sepsis",)}, True),
        ({"models": ("other", "sepsis")}, True),
        ({"models": ("other",)}, False),
        ({"principals": ("dr.adams",)}, True),
        ({"principals": ("dr.b",)}, False),
        ({"subjects": ("ab" * 32,)}, True),
        ({"subjects": ("cd" * 32,)}, False),
        ({"logs": (ORIGIN,)}, True),
        ({"logs": ("clinic/other",)}, False),
        ({"since": OLD}, True),
        ({"since": OLD + timedelta(seconds=1)}, False),
        ({"until": OLD + timedelta(seconds=1)}, True),
        ({"until": OLD}, False),
        ({"models": ("sepsis",), "principals": ("dr.b",)}, False),
        ({"models": ("sepsis",), "subjects": ("ab" * 32,), "until": NOW}, True),
    ],
)
def test_a_hold_keeps_what_matches_all_that_it_names(tmp_path, scope, held):
    marked = request(300, model="sepsis", principal="dr.adams", subject="ab" * 32)
    assert hold(**scope).holds(ORIGIN, marked) is held


def test_a_held_record_keeps_its_bundle_and_all_behind_it(tmp_path):
    records = [request(n) for n in range(1024)]
    records[300] = request(300, model="sepsis")
    source = write(tmp_path, records)
    found = plan(source, hold(models=("sepsis",)), hold(models=("none",)))
    assert (found.target, found.behind) == (256, 2)
    assert (found.keeps.reason, found.keeps.number) == (Reason.HOLD, 300)
    assert found.keeps.holds == ("LH-1",)
    assert plan(source).target == 1024


@pytest.mark.parametrize(("exported", "target"), [(0, 0), (511, 256), (512, 512), (None, 512)])
def test_what_a_destination_of_an_export_has_yet_to_take_stays(tmp_path, exported, target):
    source = write(tmp_path, [request(n) for n in range(512)])
    found = plan_pruning(source, [], days=DAYS, now=NOW, exported=exported)
    assert found.target == target
    if target < 512:
        assert (found.keeps.reason, found.keeps.number) == (Reason.EXPORT, exported)


def test_a_hold_keeps_every_review_of_its_period():
    review = ReviewRecord(
        time=OLD, id=UUID(int=1), reviewed_log=ORIGIN, reviewed_number=1,
        verdict=ReviewVerdict.JUSTIFIED, principal="c.o",
    )  # fmt: skip
    assert hold(models=("sepsis",)).holds("clinic/reviews", review)
    assert not hold(since=NOW).holds("clinic/reviews", review)


@settings(max_examples=25)
@given(
    kept=st.sets(st.integers(0, 899), max_size=4),
    held=st.sets(st.integers(0, 899), max_size=3),
    days=st.integers(0, 20),
)
def test_the_plan_is_what_one_record_after_the_other_gives(tmp_path_factory, kept, held, days):
    records = [
        request(
            n,
            model="held" if n in held else "m",
            obligations=("retain(9000)",) if n in kept else (),
        )
        for n in range(900)
    ]
    source = write(tmp_path_factory.mktemp("log"), records)
    stays = kept | held | set(range(768, 900))
    if days + DAYS > DAYS + 10:
        stays |= set(range(900))
    target = min(stays) // 256 * 256
    assert plan(source, hold(models=("held",)), days=days + DAYS).target == target


def decisions(*changes):
    """Records of retention: a hold by its number, `-number` for its release, or what is pruned."""
    for number, change in enumerate(changes):
        if isinstance(change, str):
            yield PruneRecord(
                time=NOW, id=UUID(int=1000 + number), log=change, minimum_index=256 * (number + 1),
                newest=OLD, days=DAYS, principal="c.o",
            )  # fmt: skip
        else:
            yield HoldRecord(
                time=NOW, id=UUID(int=abs(change)), reference=f"LH-{abs(change)}", scope=HoldScope(),
                principal="c.o",
                change=HoldChange.PLACED if change > 0 else HoldChange.RELEASED,
            )  # fmt: skip


def test_holds_are_in_force_until_they_are_released(tmp_path):
    source = write(tmp_path, decisions(1, 2, -1, 3, -3, 3), RETENTION)
    assert [hold.reference for hold in active_holds(PruneOrders(source).records())] == ["LH-2", "LH-3"]


def test_an_order_counts_until_a_hold_is_placed_after_it(tmp_path):
    order = PruneOrder(index=256, newest=OLD, decision=f"{RETENTION}#0")
    orders = PruneOrders(LogSource(folder=tmp_path, verifier=NoteVerifier(RETENTION, KEY.public_key())))
    assert (orders.records(), orders.order(ORIGIN)) == ([], None)
    write(tmp_path, decisions(ORIGIN), RETENTION)
    assert orders.order(ORIGIN) == order
    assert orders.order("clinic/other") is None
    assert orders.decided(ORIGIN, 256, order.decision)
    for wrong in (
        (ORIGIN, 512, order.decision),
        (ORIGIN, 256, f"{RETENTION}#1"),
        (ORIGIN, 256, "x#0"),
        ("clinic/other", 256, order.decision),
    ):
        assert not orders.decided(*wrong)
    write(tmp_path, decisions(-1), RETENTION)
    assert orders.order(ORIGIN) == order
    write(tmp_path, decisions(2), RETENTION)
    assert orders.order(ORIGIN) is None
    # What was begun before stays decided.
    assert orders.decided(ORIGIN, 256, order.decision)


def test_an_opened_log_takes_up_what_was_decided_and_an_open_one_soon(tmp_path, monkeypatch):
    monkeypatch.setattr("audit.retention.watch.POLL_S", 0.01)
    source = write(tmp_path / "log", [request(n) for n in range(600)])
    folder = tmp_path / "retention"
    orders = PruneOrders(LogSource(folder=folder, verifier=NoteVerifier(RETENTION, KEY.public_key())))
    write(folder, decisions(ORIGIN), RETENTION)

    prune = Log.prune

    async def run():
        log = await Log.open(tmp_path / "log", origin=ORIGIN, key=KEY, orders=orders)
        assert log.minimum_index == 256
        taken_up = asyncio.Event()

        async def told(log, order):
            await prune(log, order)
            if order.index == 512:
                taken_up.set()

        monkeypatch.setattr(Log, "prune", told)
        other = await Log.open(folder, origin=RETENTION, key=KEY)
        (record,) = decisions(ORIGIN)
        await other.append(encode(msgspec.structs.replace(record, minimum_index=512)))
        await other.close()
        await asyncio.wait_for(taken_up.wait(), 30)
        assert log.minimum_index == 512
        await log.close()

    asyncio.run(run())
    assert plan(source).minimum == 512


def test_a_damaged_log_of_retention_prunes_nothing_and_stops_no_gateway(tmp_path, caplog):
    write(tmp_path / "log", [request(n) for n in range(300)])
    source = write(tmp_path / "retention", decisions(ORIGIN), RETENTION)
    checkpoint = source.folder / "checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-30])

    async def run():
        orders = PruneOrders(source)
        log = await Log.open(tmp_path / "log", origin=ORIGIN, key=KEY, orders=orders)
        assert log.minimum_index == 0
        assert await log.append(encode(request(300))) == 300
        await log.close()

    asyncio.run(run())
    assert f"{ORIGIN} is not pruned" in caplog.text


def test_reports_begin_at_the_minimum_and_say_so(tmp_path):
    times = [OLD + timedelta(hours=n) for n in range(512)] + [NOW] * 88
    source = write(tmp_path, [request(n, time=time) for n, time in enumerate(times)])
    order = PruneOrder(index=512, newest=times[511], decision=f"{RETENTION}#0")

    async def prune():
        log = await Log.open(tmp_path, origin=ORIGIN, key=KEY)
        await log.prune(order)
        await log.close()

    asyncio.run(prune())
    whole = build_report(KINDS["access"], "clinic", [source], Filters())
    assert len(whole.entries) == 88
    assert whole.complete
    assert "of that time it is not complete" in notes_of(whole)[0]
    assert f"begins at record 512: those before {'were past their retention'}" in notes_of(whole)[0]
    recent = build_report(KINDS["access"], "clinic", [source], Filters(since=times[511]))
    assert "of that time it is not complete" in notes_of(recent)[0]
    after = Filters(since=times[511] + timedelta(seconds=1))
    recent = build_report(KINDS["access"], "clinic", [source], after)
    assert "None of them lies in the period" in notes_of(recent)[0]
    edges = build_report(KINDS["integrity"], "clinic", [source], Filters())
    assert [entry.index for entry in edges.entries] == [512, 599]
    figures = {figure.label: figure.value for figure in edges.kind.figures(edges)}
    assert (figures["records verified"], figures["records pruned"]) == (88, 512)
    assert decode(edges.entries[0].leaf).time == NOW
