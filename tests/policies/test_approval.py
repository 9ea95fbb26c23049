import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies import (
    Approvers,
    ApproversInvalid,
    BundleForeign,
    BundleInvalid,
    BundleUnderSigned,
    BundleUntrusted,
    add_signature,
    build_bundle,
    draft_document,
    gather,
    merged,
    read_draft,
    unpack,
    with_sources,
)
from policies.pack import PACKS

ALICE, BOB, CAROL, MALLORY = (Ed25519PrivateKey.generate() for _ in range(4))
KEYS = {name: key.public_key() for name, key in (("alice", ALICE), ("bob", BOB), ("carol", CAROL))}
APPROVERS = Approvers(site="clinic", keys=KEYS, threshold=2)


def draft(version=1, name="clinic", packs=("base", "hipaa")):
    return draft_document(build_bundle(packs, name=name, version=version, models={}))


def signed(document, *keys):
    for key in keys:
        document = add_signature(document, key)
    return document


def test_two_different_approvers_are_enough_whoever_else_signed():
    document = signed(draft(), ALICE, MALLORY, CAROL)
    assert APPROVERS.names_on(document) == ("alice", "carol")
    assert APPROVERS.verify(document).version == 1


def test_an_approver_who_signs_twice_is_one():
    twice = signed(draft(), ALICE, ALICE)
    with pytest.raises(BundleUnderSigned, match="1 of 2 approvers"):
        APPROVERS.verify(twice)
    fields = json.loads(twice)
    fields["signatures"] *= 2
    with pytest.raises(BundleUntrusted):
        APPROVERS.verify(json.dumps(fields).encode())


def test_the_same_key_under_two_names_is_no_second_approver():
    with pytest.raises(ApproversInvalid, match="same key"):
        Approvers(site="clinic", keys={"a": KEYS["bob"], "b": KEYS["bob"]}, threshold=2)
    with pytest.raises(ApproversInvalid, match="2 approvals are asked for of 1"):
        Approvers(site="clinic", keys={"a": KEYS["bob"]}, threshold=2)


@pytest.mark.parametrize("keys", [(), (MALLORY,), (MALLORY, Ed25519PrivateKey.generate())])
def test_signatures_of_others_count_for_nothing(keys):
    with pytest.raises(BundleUntrusted, match="none of the site's approvers"):
        APPROVERS.verify(signed(draft(), *keys))


def test_a_signature_is_for_one_version_and_cannot_be_carried_to_another():
    old, fresh = signed(draft(1), ALICE, BOB), json.loads(signed(draft(2), CAROL))
    fresh["signatures"] += json.loads(old)["signatures"]
    with pytest.raises(BundleUnderSigned, match="carol"):
        APPROVERS.verify(json.dumps(fresh).encode())
    (alice, _) = json.loads(old)["signatures"]
    with pytest.raises(BundleUntrusted, match="no approver's signature on this draft"):
        APPROVERS.attach(draft(2), alice)


def test_a_bundle_of_another_site_is_refused_though_the_same_people_signed_it():
    with pytest.raises(BundleForeign):
        APPROVERS.verify(signed(draft(name="north"), ALICE, BOB))


def test_signatures_made_apart_are_put_together():
    one, other = signed(draft(), ALICE), signed(draft(), BOB)
    assert APPROVERS.names_on(merged([one, other])) == ("alice", "bob")
    with pytest.raises(BundleUntrusted, match="different bundles"):
        merged([one, signed(draft(2), BOB)])
    (signature,) = json.loads(other)["signatures"]
    assert APPROVERS.names_on(APPROVERS.attach(one, signature)) == ("alice", "bob")
    for wrong in ({}, {"keyid": "a"}, {"keyid": "a", "sig": "%"}, {"keyid": "a", "sig": "AAAA"}):
        with pytest.raises(BundleUntrusted):
            APPROVERS.attach(one, wrong)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_half_a_file_is_refused(cut):
    with pytest.raises(BundleUntrusted):
        APPROVERS.verify(signed(draft(), ALICE, BOB)[:cut])


def test_what_was_changed_after_signing_is_refused():
    fields = json.loads(signed(draft(), ALICE, BOB))
    payload = base64.b64decode(fields["payload"]).replace(b"forbid", b"permit", 1)
    fields["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(BundleUntrusted):
        APPROVERS.verify(json.dumps(fields).encode())


def test_a_draft_unpacks_to_the_packs_that_it_was_made_of(tmp_path):
    packs = ("base", "hipaa")
    bundle = with_sources(build_bundle(packs, name="clinic", version=1, models={}), PACKS)
    assert read_draft(draft_document(bundle)) == bundle
    (tmp_path / "packs").mkdir()
    unpack(bundle, tmp_path / "packs")
    for file in (PACKS / "hipaa").glob("*.[cty]*"):
        assert (tmp_path / "packs/hipaa" / file.name).read_text() == file.read_text()
    assert (tmp_path / "packs/gdpr").is_dir()


@pytest.mark.parametrize(
    "path", ["../evil.toml", "hipaa/../../evil.toml", "/etc/evil", "gdpr/data.toml", "hipaa/.evil"]
)
def test_a_draft_writes_nowhere_but_into_its_packs(tmp_path, path):
    from msgspec import structs

    from policies.source import SourceFile

    bundle = with_sources(build_bundle(("base", "hipaa"), name="a", version=1, models={}), PACKS)
    evil = structs.replace(bundle, sources=(*bundle.sources, SourceFile(path=path, text="")))
    (tmp_path / "into").mkdir()
    with pytest.raises(BundleInvalid, match="in none of its packs"):
        unpack(evil, tmp_path / "into")
    assert {entry.name for entry in tmp_path.iterdir()} == {"into"}


def test_a_draft_whose_groups_are_not_its_packs_is_refused(tmp_path):
    from msgspec import structs

    bundle = with_sources(build_bundle(("base", "gdpr"), name="a", version=1, models={}), PACKS)
    wider = structs.replace(bundle.groups["EEA"], members=(*bundle.groups["EEA"].members, "US"))
    forged = structs.replace(bundle, groups={**bundle.groups, "EEA": wider})
    with pytest.raises(BundleInvalid, match="groups are not what"):
        unpack(forged, tmp_path)


def test_a_sites_own_pack_stands_beside_those_that_ship(tmp_path):
    own, into = tmp_path / "own", tmp_path / "into"
    (own / "site").mkdir(parents=True)
    (own / "site/pack.toml").write_text('name = "site"\n')
    into.mkdir()
    gather(("base", "site"), own, into)
    assert build_bundle(("base", "site"), name="a", version=1, models={}, root=into).packs[1] == "site"
