"""A record made from the one before is, byte for byte, the record that is made from nothing.

Seen to fail: without each of the comparisons in `Template.fits`, without the placement in the key, and
without each of the conditions in `_ordinary`.
"""

import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.caching import decision, question

from audit.records import Action, ConsentScope, Flag, Outcome, Problem, WorkVerdict, encode
from policies import Agreement, Candidate, DataClass, Facts, PlacementKind, Principal, Role
from secure_gateway import record as record_module
from secure_gateway import record_template
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call, Exchange, ModelInfo
from secure_gateway.record import record_of
from secure_gateway.record_template import REMEMBERED, RecordTemplates, filled

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
PLACES = ("node:local", "device:0123")


def place(name, **changes):
    return Candidate(placement=name, kind=PlacementKind.NODE, jurisdiction="US-CA", **changes)


# Of each part two that are equal in what they say of themselves and two that are not.
PRINCIPALS = [
    Principal(id=name, roles=frozenset(roles))
    for name, roles in (
        ("dr.adams", {Role.CLINICIAN}),
        ("dr.adams", {Role.CLINICIAN}),
        ("dr.adams", {Role.CLINICIAN, Role.RESEARCHER}),
        ("dr.brown", {Role.CLINICIAN}),
    )
]
MODELS = [ModelInfo("risk", "1", "a" * 64), ModelInfo("risk", "2", "b" * 64), ModelInfo("x", "", None)]
FACTS = [
    Facts(roles=frozenset({Role.CLINICIAN}), model="risk", jurisdiction="US-CA"),
    Facts(roles=frozenset({Role.CLINICIAN}), model="risk", jurisdiction="DE"),
    Facts(roles=frozenset(), model="risk", jurisdiction="DE", data_class=DataClass.SYNTHETIC),
]
CANDIDATES = [
    (place("node:local"),),
    (place("node:local", agreements=frozenset({Agreement.BAA})), place("device:0123")),
]
DECISIONS = [decision(), decision("review"), decision("no_cache"), None]
UNUSUAL = {
    "refusal": Refusal(Problem.OVERLOADED, "full"),
    "attempted": ("node:other",),
    "changed": ("node:other",),
    "from_cache": True,
    "responses": 3,
    "abandoned": True,
    "scope": ConsentScope(grants=(UUID(int=9),)),
    "withheld": True,
    "verdict": next(iter(WorkVerdict)),
    "shadow": decision("no_cache", others="other"),
}


@st.composite
def exchanges(draw):
    call = Call(
        action=draw(st.sampled_from([Action.INFER, Action.SUBMIT, Action.STREAM])),
        authorization=None,
        claims=NO_CLAIMS,
        started_ns=draw(st.integers(0, 10**9)),
    )
    number = draw(st.integers(1, 2**120))
    made = Exchange(call, UUID(int=number), NOW + timedelta(microseconds=number % 10**9))
    made.principal = draw(st.sampled_from(PRINCIPALS))
    made.model = draw(st.sampled_from(MODELS))
    made.facts = draw(st.sampled_from(FACTS))
    made.candidates = draw(st.sampled_from(CANDIDATES))
    made.decision = draw(st.sampled_from(DECISIONS))
    made.placement = draw(st.sampled_from(PLACES))
    made.pseudonym = draw(st.sampled_from([None, "c" * 64, "d" * 64]))
    made.request = draw(st.sampled_from([None, question()]))
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(UNUSUAL)))
        setattr(made, name, UNUSUAL[name])
    return made


class Still:
    """A clock that stands still, so that two records of one request say the same duration."""

    def monotonic_ns(self):
        return 5 * 10**9


@pytest.fixture(scope="module", autouse=True)
def still():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(record_module, "time", Still())
        patched.setattr(record_template, "time", Still())
        yield


def recorded(templates, exchange):
    template = templates.find(exchange)
    if template is None:
        record = record_of(exchange)
        templates.learn(exchange, record)
        return record, False
    return filled(template, exchange), True


@settings(max_examples=300)
@given(st.lists(exchanges(), min_size=2, max_size=30))
def test_a_record_from_a_template_is_the_record_from_nothing(sent):
    templates = RecordTemplates()
    for exchange in itertools.chain(sent, sent):
        assert encode(recorded(templates, exchange)[0]) == encode(record_of(exchange))


def ordinary(**changes):
    call = Call(action=Action.INFER, authorization=None, claims=NO_CLAIMS, started_ns=0)
    made = Exchange(call, UUID(int=1), NOW)
    made.principal, made.model, made.facts = PRINCIPALS[0], MODELS[0], FACTS[0]
    made.candidates, made.decision, made.placement = CANDIDATES[0], DECISIONS[0], "node:local"
    made.request = question()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


OTHERS = {
    "principal": PRINCIPALS[3],
    "model": MODELS[1],
    "facts": FACTS[1],
    "candidates": CANDIDATES[1],
    "decision": DECISIONS[1],
    "placement": "device:0123",
}


@pytest.mark.parametrize(("name", "value"), [*UNUSUAL.items(), *OTHERS.items()])
def test_one_thing_that_differs_is_enough_to_make_the_record_anew(name, value):
    templates = RecordTemplates()
    assert not recorded(templates, ordinary())[1]
    assert recorded(templates, ordinary())[1]
    other = ordinary(**{name: value})
    record, from_template = recorded(templates, other)
    assert not from_template
    assert encode(record) == encode(record_of(other))
    # Nor is an ordinary one made from it.
    assert encode(recorded(templates, ordinary())[0]) == encode(record_of(ordinary()))


def test_times_subject_and_rows_are_each_requests_own():
    templates = RecordTemplates()
    recorded(templates, ordinary())
    other = ordinary(pseudonym="e" * 64, request=None, time=NOW + timedelta(1), id=UUID(int=7))
    record, from_template = recorded(templates, other)
    assert from_template
    assert record == record_of(other)
    assert (record.subject, record.rows, record.id) == ("e" * 64, None, UUID(int=7))
    assert (record.outcome, record.flags) == (Outcome.SERVED, ())
    assert Flag.BREAK_GLASS in record_of(ordinary(decision=DECISIONS[1])).flags


def test_templates_are_bounded():
    templates = RecordTemplates()
    for number in range(REMEMBERED + 10):
        recorded(templates, ordinary(placement=f"device:{number}"))
    assert len(templates._templates) == REMEMBERED
