"""Which bundle is in force, over reloads and restarts; seen to fail without `_check_version`."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from policies import (
    Approvers,
    BundleKeeper,
    BundleOutdated,
    BundleUntrusted,
    LoadProblem,
    ModelAccess,
    Purpose,
    Role,
    add_signature,
    build_bundle,
    draft_document,
)
from policies.bundle import PAYLOAD_TYPE

ALICE, BOB = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
APPROVERS = Approvers(
    site="clinic", keys={"alice": ALICE.public_key(), "bob": BOB.public_key()}, threshold=2
)


def document(version, *keys, role=Role.CLINICIAN, site="clinic"):
    access = ModelAccess(roles=(role,), purposes=(Purpose.TREAT,))
    made = draft_document(build_bundle(("base",), name=site, version=version, models={"m": access}))
    for key in keys or (ALICE, BOB):
        made = add_signature(made, key)
    return made


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "copy.json"


class Loads(list):
    async def __call__(self, load):
        self.append(load)


class Unavailable(Exception):
    pass


async def unrecordable(_):
    raise Unavailable


async def test_a_newer_bundle_is_recorded_and_then_in_force(copy):
    keeper, loads = BundleKeeper.open(APPROVERS, copy, document(1)), Loads()
    assert await keeper.offer(document(3), loads)
    assert keeper.engine.bundle.version == 3
    (load,) = loads
    assert (load.version, load.approvers, load.problem) == (3, ("alice", "bob"), None)
    assert load.bundle == keeper.engine.bundle_digest
    assert copy.read_bytes() == keeper.document


REFUSED = {
    "older": (document(1), LoadProblem.VERSION_OUTDATED),
    "the same version with other content": (document(2, role=Role.APP), LoadProblem.VERSION_OUTDATED),
    "signed by one of two": (document(3, ALICE), LoadProblem.UNDER_SIGNED),
    "signed by somebody else": (document(3, Ed25519PrivateKey.generate()), LoadProblem.UNTRUSTED),
    "of another site": (document(3, site="north"), LoadProblem.ANOTHER_SITE),
    "half written": (document(3)[:5000], LoadProblem.UNTRUSTED),
    "empty": (b"", LoadProblem.UNTRUSTED),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_must_not_be_in_force_is_refused_and_recorded_once(copy, case):
    offered, problem = REFUSED[case]
    keeper, loads = BundleKeeper.open(APPROVERS, copy, document(2)), Loads()
    before = keeper.engine.bundle_digest
    for _ in range(3):
        assert not await keeper.offer(offered, loads)
    assert [load.problem for load in loads] == [problem]
    assert keeper.refusals == {problem: 1}
    assert keeper.engine.bundle_digest == before
    assert keeper.document == copy.read_bytes()


async def test_signed_content_that_does_not_validate_is_refused(copy):
    from msgspec import structs

    from policies.source import SourceFile

    bundle = build_bundle(("base",), name="clinic", version=2, models={})
    broken = structs.replace(bundle, policies=(SourceFile(path="base/a.cedar", text="permit ("),))
    offered = add_signature(add_signature(draft_document(broken), ALICE), BOB)
    keeper, loads = BundleKeeper.open(APPROVERS, copy, document(1)), Loads()
    assert not await keeper.offer(offered, loads)
    assert loads[0].problem is LoadProblem.INVALID
    assert keeper.engine.bundle.version == 1


async def test_a_bundle_that_cannot_be_recorded_does_not_come_into_force(copy):
    keeper, loads = BundleKeeper.open(APPROVERS, copy, document(1)), Loads()
    with pytest.raises(Unavailable):
        await keeper.offer(document(2), unrecordable)
    assert keeper.engine.bundle.version == 1
    assert BundleKeeper.open(APPROVERS, copy, None).engine.bundle.version == 1
    assert await keeper.offer(document(2), loads)


def test_an_old_bundle_that_is_put_back_is_refused_after_a_restart(copy):
    BundleKeeper.open(APPROVERS, copy, document(5))
    keeper = BundleKeeper.open(APPROVERS, copy, document(4))
    assert keeper.engine.bundle.version == 5
    assert keeper.refusals == {LoadProblem.VERSION_OUTDATED: 1}


async def test_a_refusal_at_the_start_is_recorded_once(copy):
    BundleKeeper.open(APPROVERS, copy, document(5))
    keeper, loads = BundleKeeper.open(APPROVERS, copy, document(4)), Loads()
    await keeper.start(loads)
    await keeper.offer(document(4), loads)
    assert [load.problem for load in loads] == [LoadProblem.VERSION_OUTDATED]


async def test_going_over_to_another_bundle_while_down_is_recorded_at_the_start(copy):
    BundleKeeper.open(APPROVERS, copy, document(5))
    keeper, loads = BundleKeeper.open(APPROVERS, copy, document(6)), Loads()
    assert copy.read_bytes() == document(5)
    await keeper.start(loads)
    assert [(load.version, load.problem) for load in loads] == [(6, None)]
    assert copy.read_bytes() == document(6)
    await keeper.start(loads)
    assert len(loads) == 1


def test_the_highest_version_outlives_a_change_of_approvers(copy):
    BundleKeeper.open(APPROVERS, copy, document(5))
    carol, dave = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    keys = {"carol": carol.public_key(), "dave": dave.public_key()}
    others = Approvers(site="clinic", keys=keys, threshold=2)
    with pytest.raises(BundleOutdated):
        BundleKeeper.open(others, copy, document(4, carol, dave))
    assert BundleKeeper.open(others, copy, document(6, carol, dave)).engine.bundle.version == 6


def test_without_any_bundle_or_with_a_damaged_copy_nothing_starts(copy):
    with pytest.raises(BundleUntrusted, match="no policies are published yet"):
        BundleKeeper.open(APPROVERS, copy, None)
    copy.write_bytes(document(5)[:1000])
    with pytest.raises(BundleUntrusted):
        BundleKeeper.open(APPROVERS, copy, document(6))


def test_the_copy_serves_while_nothing_else_can_be_had(copy):
    BundleKeeper.open(APPROVERS, copy, document(5))
    assert BundleKeeper.open(APPROVERS, copy, None).engine.bundle.version == 5


def of_another_release(version):
    """A bundle as a release with one member more would have signed it."""
    payload = json.dumps({"name": "clinic", "version": version, "colour": "blue"}).encode()
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for key in (ALICE, BOB):
        envelope.sign(CryptoSigner(key))
    return json.dumps(envelope.to_dict()).encode()


def test_what_another_release_took_over_still_counts_as_seen(copy):
    copy.write_bytes(of_another_release(5))
    with pytest.raises(BundleOutdated):
        BundleKeeper.open(APPROVERS, copy, document(4))
    assert BundleKeeper.open(APPROVERS, copy, document(6)).engine.bundle.version == 6
