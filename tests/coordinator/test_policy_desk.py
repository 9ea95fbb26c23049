"""The life of a bundle, step by step, and everything that must stop it.

Seen to fail: without `_outdated` an older version is published; without `_untrusted` in `_objection`
one signature is enough; with the record after `write_bundle` an unrecorded bundle is in force.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs
from support.policy import Approval

from audit import LogUnavailable
from audit.records import PolicyOutcome, PolicyProblem, PolicyStep
from coordinator import PolicyRefused
from policies import (
    ModelAccess,
    Purpose,
    Role,
    RollbackReason,
    add_signature,
    build_bundle,
    draft_document,
    read_draft,
    with_sources,
)
from policies.pack import PACKS

PACK_NAMES = ("base", "hipaa", "gdpr", "residency")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def approval(tmp_path):
    return Approval(tmp_path / "policy", "clinic", names=("alice", "bob", "carol"))


@pytest.fixture
def desk(approval):
    return approval.desk(NOW)


@pytest.fixture(scope="module")
def bundles():
    """Make drafts; what the packs make of it is built once."""
    access = ModelAccess(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))
    built = build_bundle(PACK_NAMES, name="clinic", version=1, models={"sepsis": access})
    built = with_sources(built, PACKS)

    def make(version, created=NOW, **changes):
        return structs.replace(built, version=version, created=created, **changes)

    return make


async def refused(desk, document, problem):
    before = desk.folder.bundle.read_bytes() if desk.folder.bundle.is_file() else None
    with pytest.raises(PolicyRefused) as error:
        await desk.publish(document)
    assert error.value.problem is problem
    after = desk.folder.bundle.read_bytes() if desk.folder.bundle.is_file() else None
    assert after == before
    last = desk.ledger.read()[-1]
    assert (last.outcome, last.problem) == (PolicyOutcome.REFUSED, problem)
    return str(error.value)


async def test_a_bundle_is_drafted_signed_by_two_and_published(desk, approval, bundles):
    document = draft_document(bundles(1))
    digest = await desk.draft(document, principal="e.engineer")
    assert await desk.sign(approval.signed(desk.find(digest), "alice")) == ("alice",)
    assert await desk.sign(approval.signed(desk.find(digest), "bob")) == ("alice", "bob")
    published = await desk.publish(desk.find(digest), principal="o.ramos")
    assert published.version == 1
    assert published.examination.cases > 50
    assert published.examination.proved > 20
    assert approval.approvers.verify(desk.folder.bundle.read_bytes()).digest() == digest
    assert desk.drafts() == []
    steps = desk.ledger.read()
    assert [step.step for step in steps] == [
        PolicyStep.DRAFT,
        PolicyStep.SIGN,
        PolicyStep.SIGN,
        PolicyStep.PUBLISH,
    ]
    assert {step.bundle for step in steps} == {digest}
    assert [step.principal for step in steps] == ["e.engineer", None, None, "o.ramos"]
    assert steps[-1].approvers == ("alice", "bob")
    assert published.record == "clinic/policy#3"


async def test_one_approver_is_not_enough_and_twice_the_same_is_one(desk, approval, bundles):
    one = approval.signed(bundles(1), "alice", "alice")
    message = await refused(desk, one, PolicyProblem.UNDER_SIGNED)
    assert message == "1 of 2 approvers signed the policy bundle: alice"
    fields = json.loads(one)
    fields["signatures"].append({**fields["signatures"][0], "keyid": "another"})
    await refused(desk, json.dumps(fields).encode(), PolicyProblem.UNDER_SIGNED)


async def test_the_wrong_keys_are_nobody(desk, bundles):
    document = draft_document(bundles(1))
    for _ in range(2):
        document = add_signature(document, Ed25519PrivateKey.generate())
    await refused(desk, document, PolicyProblem.UNTRUSTED)


async def test_signatures_of_an_earlier_bundle_are_worth_nothing_on_the_next(desk, approval, bundles):
    await desk.publish(approval.signed(bundles(1)))
    replayed = json.loads(draft_document(bundles(2)))
    replayed["signatures"] = json.loads(approval.signed(bundles(1)))["signatures"]
    await refused(desk, json.dumps(replayed).encode(), PolicyProblem.UNTRUSTED)


async def test_a_version_is_published_once_and_never_goes_down(desk, approval, bundles):
    await desk.publish(approval.signed(bundles(5)))
    for version in (4, 5):
        other = bundles(version, residency={"US": ("US",)})
        message = await refused(desk, approval.signed(other), PolicyProblem.VERSION_OUTDATED)
        assert "draft this one as 6" in message
    # Nor after somebody put an old file back: the log remembers.
    desk.folder.bundle.unlink()
    desk.folder.published(5).unlink()
    other = bundles(5, residency={"US": ("US",)})
    await refused(desk, approval.signed(other), PolicyProblem.VERSION_OUTDATED)
    await refused(desk, approval.signed(bundles(3)), PolicyProblem.VERSION_OUTDATED)


UNTIMELY = {
    "without a date": (None, PolicyProblem.INVALID),
    "from the future": (NOW + timedelta(minutes=6), PolicyProblem.CLOCK_OFF),
    "a month old": (NOW - timedelta(days=31), PolicyProblem.DRAFT_EXPIRED),
}


@pytest.mark.parametrize("case", UNTIMELY)
async def test_a_draft_of_the_wrong_time_is_refused(desk, approval, bundles, case):
    created, problem = UNTIMELY[case]
    await refused(desk, approval.signed(bundles(1, created=created)), problem)


async def test_a_bundle_of_another_site_is_refused(desk, approval, bundles):
    await refused(desk, approval.signed(bundles(1, name="north")), PolicyProblem.ANOTHER_SITE)


@pytest.mark.parametrize("cut", [0, 20_000])
async def test_half_a_file_is_refused(desk, approval, bundles, cut):
    await refused(desk, approval.signed(bundles(1))[:cut], PolicyProblem.UNTRUSTED)


def changed(bundle, path, old, new):
    def edit(files):
        return tuple(
            structs.replace(file, text=file.text.replace(old, new)) if file.path == path else file
            for file in files
        )

    edited = structs.replace(bundle, policies=edit(bundle.policies), sources=edit(bundle.sources))
    assert edited != bundle
    return edited


async def test_what_its_own_cases_contradict_is_refused_though_all_signed(desk, approval, bundles):
    permitted = "permitted: [device:phone]"
    contrary = changed(bundles(1), "residency/tests.yaml", permitted, "permitted: [node:us]")
    await refused(desk, approval.signed(contrary), PolicyProblem.TESTS_FAILED)


async def test_a_policy_that_no_case_exercises_is_refused(desk, approval, bundles):
    own = (
        '@id("own")\n@title("A")\n@cite("B")\n@redundant("C")\nforbid (\n  principal,\n'
        '  action == Action::"place",\n'
        '  resource\n)\nwhen { context.jurisdiction == Jurisdiction::"AQ" };\n'
    )
    bundle = bundles(1)
    table = bundle.policies[-1]
    longer = structs.replace(table, text=f"{table.text}\n{own}")
    untested = structs.replace(bundle, policies=(*bundle.policies[:-1], longer))
    message = await refused(desk, approval.signed(untested), PolicyProblem.TESTS_FAILED)
    assert "no case exercises own" in message


async def test_what_breaks_an_invariant_is_refused_though_all_signed(desk, approval, bundles):
    claim = (
        '@id("own")\n@title("A")\n@cite("B")\n@invariant("never")\nforbid (\n  principal,\n'
        '  action == Action::"place",\n  resource\n);\n'
    )
    bundle = bundles(1)
    last = bundle.invariants[-1]
    longer = structs.replace(last, text=f"{last.text}\n{claim}")
    broken = structs.replace(bundle, invariants=(*bundle.invariants[:-1], longer))
    message = await refused(desk, approval.signed(broken), PolicyProblem.PROOFS_FAILED)
    assert "own does not hold" in message


async def test_cases_that_are_not_about_what_is_signed_are_refused(desk, approval, bundles):
    bundle = bundles(1)
    without = structs.replace(
        bundle, groups={**bundle.groups, "EEA": structs.replace(bundle.groups["EEA"], members=())}
    )
    await refused(desk, approval.signed(without), PolicyProblem.CHECKS_FAILED)
    await refused(
        desk, approval.signed(structs.replace(bundle, sources=())), PolicyProblem.CHECKS_FAILED
    )


async def test_what_cannot_be_recorded_does_not_come_into_force(desk, approval, bundles, monkeypatch):
    from audit import Log

    def full(self, leaf):
        raise LogUnavailable("no space")

    monkeypatch.setattr(Log, "append", full)
    with pytest.raises(LogUnavailable):
        await desk.publish(approval.signed(bundles(1)))
    assert not desk.folder.bundle.exists()
    monkeypatch.undo()
    await desk.publish(approval.signed(bundles(1)))
    assert desk.folder.bundle.exists()


async def test_publishing_again_finishes_what_was_interrupted(desk, approval, bundles, monkeypatch):
    from coordinator.policy import desk as module

    write = module.write_bundle

    def killed(path, document):
        if path == desk.folder.bundle:
            raise OSError(5, "killed")
        write(path, document)

    monkeypatch.setattr(module, "write_bundle", killed)
    with pytest.raises(OSError, match="killed"):
        await desk.publish(approval.signed(bundles(2)))
    monkeypatch.undo()
    await desk.publish(approval.signed(bundles(2)))
    assert read_draft(desk.folder.bundle.read_bytes()).version == 2


async def test_two_who_publish_at_once_do_not_both_win(desk, approval, bundles):
    one, other = bundles(1), bundles(1, residency={"US": ("US",)})
    results = await asyncio.gather(
        *(approval.desk(NOW).publish(approval.signed(bundle)) for bundle in (one, other)),
        return_exceptions=True,
    )
    lost = [result for result in results if isinstance(result, PolicyRefused)]
    assert [error.problem for error in lost] == [PolicyProblem.VERSION_OUTDATED]


async def test_a_rollback_brings_an_earlier_content_back_as_a_higher_version(desk, approval, bundles):
    first = bundles(1)
    await desk.publish(approval.signed(first))
    await desk.publish(approval.signed(bundles(2, residency={"US": ("US",)})))
    draft = desk.rollback(1, RollbackReason.WRONG_REFUSALS)
    await refused(desk, approval.signed(draft, "bob"), PolicyProblem.UNDER_SIGNED)
    published = await desk.publish(approval.signed(draft))
    assert published.version == 3
    in_force = read_draft(desk.folder.bundle.read_bytes())
    assert (in_force.residency, in_force.policies) == (first.residency, first.policies)
    last = desk.ledger.read()[-1]
    assert (last.step, last.restores, last.reason) == (PolicyStep.ROLLBACK, 1, "wrong-refusals")


async def test_a_rollback_that_is_something_else_or_to_nothing_is_refused(desk, approval, bundles):
    await desk.publish(approval.signed(bundles(1)))
    draft = read_draft(desk.rollback(1, RollbackReason.LAW_CHANGED))
    forged = structs.replace(draft, residency={"US": ("DE",)})
    await refused(desk, approval.signed(forged), PolicyProblem.CONTENT_DIFFERS)
    with pytest.raises(PolicyRefused, match="never published"):
        desk.rollback(7, RollbackReason.LAW_CHANGED)
    desk.folder.published(1).write_bytes(approval.signed(forged))
    with pytest.raises(PolicyRefused, match="not what the log says"):
        desk.rollback(1, RollbackReason.LAW_CHANGED)


async def test_a_signature_of_nobody_here_is_refused_and_changes_no_draft(desk, bundles):
    digest = await desk.draft(draft_document(bundles(1)))
    stranger = add_signature(desk.find(digest), Ed25519PrivateKey.generate())
    with pytest.raises(PolicyRefused, match="none of the site's approvers"):
        await desk.sign(stranger)
    assert desk.find(digest) == draft_document(bundles(1))


async def test_drafts_are_limited_and_can_be_withdrawn(desk, bundles, monkeypatch):
    from coordinator.policy import desk as module

    monkeypatch.setattr(module, "DRAFTS_MAX", 1)
    digest = await desk.draft(draft_document(bundles(1)))
    assert await desk.draft(draft_document(bundles(1))) == digest
    with pytest.raises(PolicyRefused, match="1 drafts wait already"):
        await desk.draft(draft_document(bundles(2)))
    await desk.withdraw(digest)
    with pytest.raises(PolicyRefused, match="no draft of this digest"):
        await desk.withdraw(digest)
    await desk.draft(draft_document(bundles(2)))
    steps = [(step.step, step.version) for step in desk.ledger.read()]
    assert (PolicyStep.WITHDRAW, 1) in steps


async def test_a_shadow_needs_one_approver_and_has_a_beginning_and_an_end(desk, approval, bundles):
    with pytest.raises(PolicyRefused) as error:
        await desk.start_shadow(draft_document(bundles(2)))
    assert error.value.problem is PolicyProblem.UNTRUSTED
    assert not desk.folder.shadow.exists()
    bundle = await desk.start_shadow(approval.signed(bundles(2), "carol"))
    assert read_draft(desk.folder.shadow.read_bytes()) == bundle
    await desk.stop_shadow()
    assert not desk.folder.shadow.exists()
    with pytest.raises(PolicyRefused, match="no candidate"):
        await desk.stop_shadow()
    steps = [(step.step, step.outcome.value) for step in desk.ledger.read()]
    assert steps == [
        (PolicyStep.SHADOW_START, "refused"),
        (PolicyStep.SHADOW_START, "done"),
        (PolicyStep.SHADOW_STOP, "done"),
    ]
