"""Recorded decisions are decided again from the records alone.

Seen to fail: with `on_device` taken from the roles, or `holds_subject` left out of a place's traits,
the bundle does not reproduce its own decisions.
"""

import random
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log
from audit.records import Action, DecisionChange, Problem, ShadowDifference, decode, encode
from audit.reports import LogSource
from coordinator.policy.recorded import (
    NotReplayable,
    Period,
    recorded,
    replay_logs,
    report_shadow,
)
from policies import (
    Agreement,
    Belonging,
    CallerKind,
    Candidate,
    Change,
    DataClass,
    Engine,
    Facts,
    ModelAccess,
    PlacementKind,
    Principal,
    Purpose,
    Role,
    build_bundle,
)
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call, Exchange, ModelInfo
from secure_gateway.record import record_of

PACKS = ("base", "hipaa", "gdpr", "residency")
NODES = tuple(
    Candidate(
        placement=f"node:{name}",
        kind=PlacementKind.NODE,
        jurisdiction=home,
        operator="" if home == "US-CA" else name,
        agreements=frozenset({Agreement.BAA, Agreement.SCC}) if agreed else frozenset(),
        attested=agreed,
        adequacy=not agreed,
    )
    for name, home, agreed in (("us", "US-CA", False), ("de", "DE", True), ("cloud", "US", True))
)
START = datetime(2026, 11, 1, tzinfo=UTC)


def bundle(version=1, residency=None):
    access = ModelAccess(roles=(Role.CLINICIAN, Role.DEVICE, Role.RESEARCHER), purposes=tuple(Purpose))
    return build_bundle(
        PACKS, name="clinic", version=version, models={"m": access}, residency=residency
    )


@pytest.fixture(scope="module")
def engine():
    return Engine(bundle())


def record_at(engine, number, chance):
    """Return the record of a random request, made as the gateway makes it."""
    roles = frozenset(chance.sample(list(Role), chance.randint(0, 2)))
    if chance.random() < 0.6:
        roles = frozenset({Role.CLINICIAN})
    on_device = chance.random() < 0.3
    own_device = on_device and chance.random() < 0.3
    kind = CallerKind.DEVICE if own_device else chance.choice((CallerKind.USER, CallerKind.SERVICE))
    said = Belonging(kind=kind, site="clinic", organisation=chance.choice(("clinic", "partner")))
    if chance.random() < 0.2:
        said = Belonging(kind=kind)
    facts = Facts(
        roles=roles,
        kind=kind,
        site=said.site or "",
        organisation=said.organisation or "",
        model=chance.choice(("m", "m", "m", "unregistered")),
        jurisdiction=chance.choice(("US-CA", "US-CA", "DE", "US", "JP")),
        data_class=chance.choice(list(DataClass)),
        purpose=chance.choice([*Purpose, *[Purpose.TREAT] * 5]),
        consent=chance.random() < 0.3,
        emergency=chance.random() < 0.2,
        on_device=on_device,
        own_device=own_device,
        carries_payload=chance.random() < 0.7,
    )
    candidates = NODES[: chance.randint(0, 3)]
    if on_device:
        device = Candidate(
            placement=f"device:{number}",
            kind=PlacementKind.DEVICE,
            jurisdiction=chance.choice(("US-CA", "DE", "")),
            on_premises=chance.random() < 0.5,
            holds_subject=True,
        )
        candidates = (*candidates, device)
    call = Call(
        action=Action.INFER, authorization=None, claims=NO_CLAIMS, started_ns=time.monotonic_ns()
    )
    exchange = Exchange(call, UUID(int=number), START + timedelta(minutes=number))
    exchange.principal = Principal(
        id=f"device:{number}" if own_device else "dr.adams", roles=roles, said=said
    )
    exchange.model = ModelInfo(facts.model, "1", None)
    exchange.facts = facts
    exchange.candidates = candidates
    exchange.decision = engine.decide(facts, candidates)
    if exchange.decision.permitted:
        exchange.placement = chance.choice(exchange.decision.permitted)
    else:
        exchange.refusal = Refusal(Problem.POLICY_REFUSED, "refused")
    return record_of(exchange)


@pytest.fixture(scope="module")
def records(engine):
    chance = random.Random(7)
    return [record_at(engine, number, chance) for number in range(1500)]


@pytest.fixture
def sources(tmp_path):
    async def write(records):
        key = Ed25519PrivateKey.generate()
        log = await Log.open(tmp_path / "log", origin="clinic/gateway-1", key=key)
        for record in records:
            log.append(encode(record))
        await log.close()
        return [LogSource(folder=tmp_path / "log", verifier=log.verifier)]

    return write


async def test_a_bundle_reproduces_every_decision_that_it_made(records, sources):
    run = replay_logs(await sources(records), bundle(), Period())
    assert (run.found.decided, run.found.own) == (1500, 1500)
    assert run.found.reproduced == 1500
    assert (run.found.counts, run.found.contradicted, run.not_replayable) == ({}, (), {})
    assert run.found.unchanged == 1500


async def test_another_bundle_says_what_it_would_have_refused_moved_and_permitted(
    engine, records, sources
):
    stricter = bundle(2, residency={"US-CA": ("US-CA",), "DE": ("FR",)})
    run = replay_logs(await sources(records), stricter, Period())
    other = Engine(stricter)
    expected = dict.fromkeys(Change, 0)
    for record in records:
        entry = recorded("", record)
        decision = other.decide(entry.facts, entry.candidates)
        was = record.problem is None
        if was != decision.allowed:
            expected[Change.PERMITTED if decision.allowed else Change.REFUSED] += 1
        elif was:
            expected[Change.MOVED] += record.placement not in decision.permitted
            expected[Change.OBLIGATIONS] += record.obligations != decision.obligations
    assert run.found.counts == {change: count for change, count in expected.items() if count}
    assert expected[Change.REFUSED]
    assert expected[Change.MOVED]
    assert run.found.own == 0
    for change, examples in run.found.examples.items():
        assert 1 <= len(examples) <= 5
        for example in examples:
            index = int(example.record.removeprefix("clinic/gateway-1#"))
            assert records[index].policies == example.policies
            if change is Change.REFUSED:
                assert "residency-table" in example.would_be


async def test_what_records_of_before_do_not_say_is_counted_and_not_guessed(records, sources):
    old = [msgspec.structs.replace(record, carries_payload=None) for record in records[:7]]
    unknown = [msgspec.structs.replace(record, roles=("janitor",)) for record in records[7:10]]
    receipt = msgspec.structs.replace(records[10], action=Action.RECEIPT, carries_payload=None)
    run = replay_logs(await sources([*old, *unknown, receipt, *records[11:20]]), bundle(), Period())
    assert run.not_replayable == {
        NotReplayable.FACTS_MISSING: 7,
        NotReplayable.VALUE_UNKNOWN: 3,
    }
    assert run.found.decided == 9


async def test_a_record_that_does_not_say_what_was_decided_is_found(records, sources):
    permitted = next(record for record in records if record.problem is None)
    forged = msgspec.structs.replace(permitted, policies=("hipaa-research",))
    run = replay_logs(await sources([*records[:50], forged]), bundle(), Period())
    assert run.found.own - run.found.reproduced == 1
    assert run.found.contradicted == ("clinic/gateway-1#50",)


async def test_only_the_period_is_replayed(records, sources):
    period = Period(since=START + timedelta(minutes=100), until=START + timedelta(minutes=200))
    assert replay_logs(await sources(records), bundle(), period).found.decided == 100


def test_every_fact_and_every_trait_of_a_place_is_recorded(engine, records):
    """Whoever adds a fact has to record it: without it, the decision cannot be repeated."""
    chance = random.Random(3)
    seen = [(record, recorded("", decode(encode(record)))) for record in records]
    seen += [(r, recorded("", r)) for r in (record_at(engine, 9, chance) for _ in range(50))]
    for name in Facts.__struct_fields__:
        assert len({getattr(entry.facts, name) for _, entry in seen}) > 1, name
    for name in Candidate.__struct_fields__:
        values = {getattr(place, name) for _, entry in seen for place in entry.candidates}
        assert len(values) > 1, name


async def test_the_shadows_differences_are_counted_with_examples(records, sources):
    note = ShadowDifference(bundle="ab" * 32, changes=(DecisionChange.REFUSED,))
    marked = [
        msgspec.structs.replace(record, shadow=note) if number % 10 == 0 else record
        for number, record in enumerate(records[:100])
    ]
    log = await sources(marked)
    found = report_shadow(log, "ab" * 32, Period())
    assert (found.differing, found.counts) == (10, {"refused": 10})
    assert found.examples["refused"][:2] == ("clinic/gateway-1#0", "clinic/gateway-1#10")
    assert report_shadow(log, "cd" * 32, Period()).differing == 0
