"""What a candidate in the shadow may cost: never an answer, and little time."""

import pytest
from support.policy import Approval

from policies import (
    Candidate,
    Engine,
    Facts,
    ModelAccess,
    PlacementKind,
    Purpose,
    Role,
    build_bundle,
    draft_document,
)
from secure_gateway.shadow import FAILURES_MAX, Shadow, difference

NODE = (Candidate(placement="node:us", kind=PlacementKind.NODE, jurisdiction="US-CA"),)


def bundle(role=Role.CLINICIAN):
    access = ModelAccess(roles=(role,), purposes=(Purpose.TREAT,))
    return build_bundle(("base", "hipaa"), name="clinic", version=2, models={"m": access})


def facts(jurisdiction="US-CA"):
    return Facts(roles=frozenset({Role.CLINICIAN}), model="m", jurisdiction=jurisdiction)


@pytest.fixture
def approval(tmp_path):
    return Approval(tmp_path, "clinic")


async def test_it_decides_while_there_is_a_candidate_and_no_longer(approval):
    shadow = Shadow(approval.approvers)
    assert shadow.decide(facts(), NODE) is None
    await shadow.offer(approval.signed(bundle(), "alice"))
    assert shadow.decide(facts(), NODE).permitted == ("node:us",)
    await shadow.offer(b"")
    assert shadow.decide(facts(), NODE) is None


async def test_a_candidate_that_nobody_signed_or_that_is_broken_is_none(approval):
    shadow = Shadow(approval.approvers)
    for document in (draft_document(bundle()), b"{}", approval.signed(bundle())[:500]):
        await shadow.offer(approval.signed(bundle(), "alice"))
        await shadow.offer(document)
        assert shadow.bundle_digest is None


async def test_a_failing_candidate_hurts_nobody_and_is_let_go(approval, monkeypatch):
    shadow = Shadow(approval.approvers)
    await shadow.offer(approval.signed(bundle(), "alice"))

    def fails(engine, facts, candidates):
        raise ValueError("a defect")

    monkeypatch.setattr(Engine, "decide", fails)
    for number in range(FAILURES_MAX):
        assert shadow.decide(facts(f"US-{number}"), NODE) is None
    assert (shadow.failed, shadow.bundle_digest) == (FAILURES_MAX, None)


async def test_what_it_works_out_is_limited_and_what_it_knows_is_not(approval):
    shadow = Shadow(approval.approvers, worked_out_per_s=0)
    await shadow.offer(approval.signed(bundle(), "alice"))
    assert shadow.decide(facts(), NODE) is None
    assert (shadow.worked_out, shadow.left_out) == (0, 1)
    shadow = Shadow(approval.approvers)
    await shadow.offer(approval.signed(bundle(), "alice"))
    for _ in range(1000):
        assert shadow.decide(facts(), NODE) is not None
    assert (shadow.worked_out, shadow.left_out) == (1, 0)


def test_only_differences_are_noted():
    permits, refuses = (Engine(bundle(role)) for role in (Role.CLINICIAN, Role.RESEARCHER))
    yes, no = (engine.decide(facts(), NODE) for engine in (permits, refuses))
    assert difference(yes, yes, "node:us") is None
    assert difference(yes, None, "node:us") is None
    assert difference(yes, no, "node:us").changes == ("refused",)
    assert difference(no, yes, None).changes == ("permitted",)
    assert difference(yes, yes, "node:elsewhere").changes == ("moved",)
    assert difference(no, yes, None).bundle == permits.bundle_digest
