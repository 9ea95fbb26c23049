"""What a full door keeps out: recorded together, answered after, and held back where it goes on.

Seen to fail: with `SharedRefusals.add` calling its reply at once a refusal is answered unrecorded; with
`HeldConnections.refused` always False nobody is held; with `_let_through` counting nobody, all three
who come at once are let through; with `keep` doing nothing, who is not called takes the place.
"""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, LogUnavailable
from audit.records import Action, Problem, RefusalsRecord, decode
from bedside.held import HELD_MAX_S, HeldConnections
from policies import Principal, Role
from secure_gateway.admission import (
    AdmissionSettings,
    BreakGlassLimit,
    CallerLimits,
    Door,
    LimitSettings,
)
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.counting import RequestCounters
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call, Exchange
from secure_gateway.ids import new_id
from secure_gateway.refusals import SharedRefusals
from secure_gateway.threshold import Threshold

ADAMS = Principal(id="dr.adams", roles=frozenset({Role.CLINICIAN}))
BAKER = Principal(id="dr.baker", roles=frozenset({Role.CLINICIAN}))
BEARER = (b"authorization", b"Bearer adams")
PATH = "/v2/models/m/infer"


def open_log(tmp_path):
    return Log.open(tmp_path / "log", origin="clinic/gateway-1", key=Ed25519PrivateKey.generate())


async def test_refusals_of_one_moment_share_a_record_and_are_answered_after_it(tmp_path):
    log, counters, answered = await open_log(tmp_path), RequestCounters(), []
    refusals, done = SharedRefusals(log, counters), asyncio.Event()

    def reply(where):
        # It is durable by now: the log has it.
        assert log.size > int(where.partition("#")[2])
        answered.append(where)
        if len(answered) == 4:
            done.set()

    for _ in range(3):
        refusals.add(ADAMS, Action.INFER, "m", reply)
    refusals.add(BAKER, Action.INFER, "m", reply)
    assert answered == []
    await done.wait()
    records = [decode(leaf) for leaf in log.entries(0, log.size)]
    assert [(r.principal, r.count, r.model) for r in records] == [
        ("dr.adams", 3, "m"),
        ("dr.baker", 1, "m"),
    ]
    assert answered == ["clinic/gateway-1#0"] * 3 + ["clinic/gateway-1#1"]
    assert all(r.until >= r.time and r.problem is Problem.OVERLOADED for r in records)
    assert counters.requests == {("infer", "failed", "overloaded", None, "m"): 4}
    await log.close()


async def test_a_refusal_that_cannot_be_recorded_is_told_so(tmp_path):
    log, counters, answered = await open_log(tmp_path), RequestCounters(), []
    refusals = SharedRefusals(log, counters)
    await log.close()
    refusals.add(ADAMS, Action.INFER, "m", answered.append)
    with pytest.raises(LogUnavailable):
        await refusals.record(exchange_of(ADAMS))
    assert answered == [None]
    assert counters.unrecorded == 2
    assert counters.requests == {}


def exchange_of(principal):
    call = Call(action=Action.INFER, authorization=None, claims=NO_CLAIMS, started_ns=0, model="m")
    exchange = Exchange(call, new_id(), None)
    exchange.principal = principal
    return exchange


class Remembering:
    def remembered(self, authorization):
        return ADAMS if authorization == b"Bearer adams" else None


async def test_only_a_known_caller_at_a_full_door_is_turned_away_by_the_head(tmp_path):
    log = await open_log(tmp_path)
    door = door_of(AdmissionSettings(least=1, most=1))
    threshold = Threshold(door, Remembering(), SharedRefusals(log, RequestCounters()))
    answers = asyncio.Queue()

    def turn_away(path=PATH, *headers):
        return threshold.turn_away(path, headers, lambda *answer: answers.put_nowait(answer))

    entered = door.enter(exchange_of(ADAMS))
    # Nobody was refused yet, so the head is not looked at.
    assert turn_away(PATH, BEARER) is None
    with pytest.raises(Refusal):
        door.enter(exchange_of(ADAMS))
    assert turn_away(PATH, (b"authorization", b"Bearer unknown")) is None
    assert turn_away(PATH) is None
    assert turn_away(PATH, BEARER, BEARER) is None
    assert turn_away("/v2/models/other/infer", BEARER) is None
    assert turn_away("/v2/models/m", BEARER) is None
    assert turn_away(PATH, BEARER) == "m"
    status, headers, body = await answers.get()
    assert status == 503
    assert int(dict(headers)[b"retry-after"]) >= 1
    assert b"urn:bedside:problem:overloaded" in body
    (record,) = [decode(leaf) for leaf in log.entries(0, log.size)]
    assert isinstance(record, RefusalsRecord)
    assert dict(headers)[b"bedside-record"] == b"clinic/gateway-1#0"
    entered.leave(served=True)
    assert turn_away(PATH, BEARER) is None
    await log.close()


async def test_that_somebody_was_refused_is_said_for_a_second(monkeypatch, tmp_path):
    log = await open_log(tmp_path)
    door = door_of(AdmissionSettings(least=1, most=1))
    threshold = Threshold(door, Remembering(), SharedRefusals(log, RequestCounters()))
    assert not threshold.refused_lately()
    door.enter(exchange_of(ADAMS))
    assert not threshold.refused_lately()
    with pytest.raises(Refusal):
        door.enter(exchange_of(ADAMS))
    assert threshold.refused_lately()
    monkeypatch.setattr("secure_gateway.threshold.CROWDED_FOR_S", 0.0)
    assert not threshold.refused_lately()
    await log.close()


async def test_for_one_place_only_one_of_those_who_come_at_once_is_let_through(tmp_path):
    log = await open_log(tmp_path)
    door = door_of(AdmissionSettings(least=1, most=1))
    threshold = Threshold(door, Remembering(), SharedRefusals(log, RequestCounters()))
    answers = asyncio.Queue()

    def turn_away(**named):
        return threshold.turn_away(PATH, (BEARER,), lambda *answer: answers.put_nowait(answer), **named)

    entered = door.enter(exchange_of(ADAMS))
    with pytest.raises(Refusal):
        door.enter(exchange_of(ADAMS))
    entered.leave(served=True)
    # What is let through comes to the door in the next turn of the loop.
    assert [turn_away() for _ in range(3)] == [None, "m", "m"]
    assert threshold.room("m") == 0
    await answers.get()
    await answers.get()
    # It never came, so the place is free again.
    assert threshold.room("m") == 1
    threshold.keep("m", 1)
    assert turn_away() == "m"
    assert turn_away(called=True) is None
    assert turn_away(called=True) == "m"
    await answers.get()
    await answers.get()
    threshold.keep("m", 0)
    assert turn_away() is None
    await log.close()


def door_of(settings):
    return Door(settings, CallerLimits(LimitSettings()), BreakGlassLimit(None), lambda _: True)


class Connection:
    def __init__(self):
        self.gone_on = []

    def go_on(self, *, called):
        self.gone_on.append(called)


class Doors:
    def __init__(self):
        self.free = self.kept = 0

    def room(self, model):
        return self.free

    def keep(self, model, places):
        self.kept = places


def held_by(per_s, connections):
    """Return a clock, doors, and connections of which the first was not held and all others were."""
    now, doors = [100.0], Doors()
    held = HeldConnections(doors, per_s=per_s, clock=lambda: now[0])
    made = [Connection() for _ in range(connections)]
    assert [held.refused(connection, "m") for connection in made] == [False] + [True] * (
        connections - 1
    )
    return now, doors, held, made[1:]


async def test_connections_that_go_on_asking_are_called_in_turn_as_soon_as_a_place_is_free():
    now, doors, held, waiting = held_by(20, 4)
    doors.free = 2
    held.look()
    # There is room, but so many were refused already that it is nobody's turn.
    assert [connection.gone_on for connection in waiting] == [[], [], []]
    assert doors.kept == 0
    now[0] += 0.2
    doors.free = 0
    held.look()
    # It is somebody's turn, and no place is free: the next one is kept.
    assert [connection.gone_on for connection in waiting] == [[], [], []]
    assert doors.kept == 1
    doors.free = 2
    held.look()
    assert [connection.gone_on for connection in waiting] == [[True], [], []]
    assert doors.kept == 1
    assert len(held) == 2


async def test_nobody_is_held_for_longer_than_is_said_and_no_place_is_kept_for_ever():
    now, doors, held, waiting = held_by(20, 4)
    now[0] += HELD_MAX_S
    held.look()
    assert [connection.gone_on for connection in waiting] == [[False], [False], [False]]
    held.look()
    assert doors.kept == 0


async def test_a_place_that_was_kept_for_the_last_one_is_free_again_after_it():
    now, doors, held, waiting = held_by(20, 2)
    now[0] += 0.2
    doors.free = 1
    held.look()
    assert waiting[0].gone_on == [True]
    assert doors.kept == 1
    held.look()
    assert doors.kept == 0


async def test_at_the_end_all_go_on_and_nobody_is_held_any_more():
    _, _, held, waiting = held_by(20, 4)
    held.end()
    assert [connection.gone_on for connection in waiting] == [[False]] * 3
    assert not held.refused(waiting[0], "m")
    held.look()
    assert len(held) == 0


async def test_a_connection_that_cannot_go_on_keeps_no_other_from_its_turn():
    loop, failed, doors = asyncio.get_running_loop(), [], Doors()
    loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
    doors.free = 3
    held = HeldConnections(doors, per_s=20)
    _, first, second = connections = [Connection() for _ in range(3)]
    assert [held.refused(connection, "m") for connection in connections] == [False, True, True]

    def fail(*, called):
        raise RuntimeError(called)

    first.go_on = fail
    async with asyncio.timeout(10):
        while not second.gone_on:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [type(error) for error in failed] == [RuntimeError]
