"""Which bundle a site starts with: of its configuration without approvers, of theirs with some."""

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from support import make_site

from bedside.config import EXAMPLE_ACCESS, PolicyEntry
from bedside.errors import BedsideError
from bedside.site import Site
from policies import BundleInvalid, read_draft, sign, write_bundle
from policies.bundle import PAYLOAD_TYPE

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path, policy=PolicyEntry(packs=("base",)))


def changed(site, **policy):
    entry = site.config.policy.model_copy(update=policy)
    return Site(site.config.model_copy(update={"policy": entry}))


def settled(site):
    return read_draft(site.bundles().settle()).version


def test_without_approvers_the_configuration_is_published_at_a_start(site):
    assert site.bundles().embedded
    assert (settled(site), settled(site)) == (1, 1)
    assert settled(changed(site, packs=("base", "hipaa"))) == 2
    assert settled(site) == 3


def test_looking_at_the_bundle_publishes_nothing(site):
    assert site.bundle().version == 1
    assert not site.bundles().folder.bundle.exists()


def test_a_lost_bundle_does_not_let_the_version_go_down(site):
    settled(site)
    document = site.bundles().settle()
    write_bundle(site.bundles().folder.seen("gateway-1"), document)
    site.bundles().folder.bundle.unlink()
    assert settled(site) == 2


def test_what_was_published_by_hand_is_not_overwritten_by_the_configuration(site):
    by_hand = site.bundles().drafted(7, NOW)
    key = site.keys.signing_key("policy")
    write_bundle(site.bundles().folder.bundle, sign(by_hand, [key]))
    assert settled(changed(site, packs=("base", "hipaa"))) == 7


def test_with_approvers_nothing_is_made_of_the_configuration(site):
    settled(site)
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    approved = changed(site, approvers={"alice": key}, threshold=1)
    with pytest.raises(BedsideError, match="none of the site's approvers"):
        approved.bundle()
    approved.bundles().folder.bundle.unlink()
    assert approved.bundles().settle() is None
    with pytest.raises(BedsideError, match="no policies are published yet"):
        approved.bundle()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"approvers": {"a": "ab" * 32}, "threshold": 2}, "2 approvals are asked for of 1"),
        ({"approvers": {"a": "ab" * 32, "b": "ab" * 32}, "threshold": 2}, "the same key"),
    ],
)
def test_approvers_who_could_never_approve_are_an_error(site, policy, words):
    with pytest.raises(BedsideError, match=words):
        changed(site, **policy).bundles().approvers()


def test_a_missing_pack_and_a_missing_folder_are_clear_errors(site, tmp_path):
    with pytest.raises(BundleInvalid, match="there is no policy pack named 'lgpd'"):
        changed(site, packs=("base", "lgpd")).bundles().drafted(1)
    with pytest.raises(BedsideError, match="there is no folder"):
        changed(site, folder=tmp_path / "nowhere").bundles().drafted(1)


def test_a_sites_own_pack_stands_beside_those_that_ship(site, tmp_path):
    own = tmp_path / "packs" / "own"
    own.mkdir(parents=True)
    (own / "pack.toml").write_text('name = "own"\n')
    with_own = changed(site, packs=("base", "own"), folder=tmp_path / "packs")
    draft = with_own.bundles().drafted(1, NOW)
    assert draft.packs == ("base", "own")
    assert {file.path for file in draft.sources} >= {"own/pack.toml", "base/pack.toml"}
    assert draft.models["breast-cancer"].roles == EXAMPLE_ACCESS.roles


def test_a_pack_of_its_own_is_not_named_like_one_that_ships(site, tmp_path):
    own = tmp_path / "packs" / "hipaa"
    own.mkdir(parents=True)
    (own / "pack.toml").write_text('name = "hipaa"\nrequires = ["base"]\n')
    # Whether it is used or not: it would be, by the next who names the law's pack.
    with_own = changed(site, folder=tmp_path / "packs")
    with pytest.raises(BedsideError, match="hipaa is named like a pack that ships"):
        with_own.bundles().drafted(1)


def test_a_bundle_of_another_release_is_made_again_at_a_higher_version(site):
    payload = json.dumps({"name": "clinic", "version": 4, "colour": "blue"}).encode()
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(site.keys.signing_key("policy")))
    write_bundle(site.bundles().folder.bundle, json.dumps(envelope.to_dict()).encode())
    assert settled(site) == 5
