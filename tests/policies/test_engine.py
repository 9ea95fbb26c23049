import concurrent.futures
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from policies import (
    BundleInvalid,
    BundleOutdated,
    BundleUntrusted,
    Candidate,
    DataClass,
    Engine,
    Facts,
    ModelAccess,
    PlacementKind,
    Purpose,
    Role,
    build_bundle,
    explain,
    read_bundle,
    sign,
    verify,
    write_bundle,
)

PACKS = ("base", "hipaa", "gdpr", "residency")
OPEN = ModelAccess(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT, Purpose.ETREAT))
CLOSED = ModelAccess(roles=(), purposes=())
FACTS = Facts(roles=frozenset({Role.CLINICIAN}), model="sepsis", jurisdiction="US-CA")
KEY = Ed25519PrivateKey.generate()


def node(name, jurisdiction="US-CA"):
    return Candidate(placement=f"node:{name}", kind=PlacementKind.NODE, jurisdiction=jurisdiction)


def bundle(version=1, access=OPEN, **changes):
    return build_bundle(PACKS, name="clinic", version=version, models={"sepsis": access}, **changes)


def test_like_nodes_are_decided_alike_and_all_named():
    engine = Engine(bundle())
    fleet = tuple(node(f"us-{n}") for n in range(20))
    assert engine.decide(FACTS, fleet).permitted == tuple(place.placement for place in fleet)
    mixed = (node("a"), node("b", "DE"), node("c"))
    german = msgspec.structs.replace(FACTS, jurisdiction="DE")
    assert engine.decide(german, mixed).permitted == ("node:b",)


def test_no_more_decisions_are_remembered_than_allowed():
    engine = Engine(bundle(), cached_decisions=2)
    facts = [msgspec.structs.replace(FACTS, data_class=each) for each in DataClass]
    first = [engine.decide(each, (node("us"),)) for each in facts]
    assert [engine.decide(each, (node("us"),)) for each in facts] == first
    assert len(engine._loaded.decisions) == 2


def test_a_jurisdiction_that_nobody_listed_is_nobody_s_friend():
    engine = Engine(bundle())
    for home in ("XX", "US-ZZZ", "", "EEA-1"):
        facts = msgspec.structs.replace(FACTS, jurisdiction="DE")
        assert not engine.decide(facts, (node("n", home),)).allowed


def test_a_version_names_one_bundle():
    engine = Engine(bundle())
    engine.replace(bundle())
    with pytest.raises(BundleOutdated, match="publish this one as 2"):
        engine.replace(bundle(access=CLOSED))
    assert engine.decide(FACTS, (node("us"),)).allowed


def test_an_invalid_bundle_leaves_the_running_one():
    engine = Engine(bundle())
    broken = msgspec.structs.replace(bundle(2), schema=())
    with pytest.raises(BundleInvalid):
        engine.replace(broken)
    assert engine.bundle.version == 1
    assert engine.decide(FACTS, (node("us"),)).allowed


def test_no_request_sees_half_of_a_bundle():
    """While bundles are swapped, each decision is one that its own bundle would make, and no other."""
    bundles = [bundle(version, OPEN if version % 2 else CLOSED) for version in range(1, 12)]
    expected = {each.digest(): bool(each.version % 2) for each in bundles}
    engine = Engine(bundles[0])

    def ask(seed):
        wrong = 0
        for n in range(150):
            decision = engine.decide(FACTS, (node(f"{seed}-{n}"),))
            wrong += decision.allowed is not expected[decision.bundle_digest]
        return wrong

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, seed) for seed in range(3)]
        for each in bundles[1:]:
            engine.replace(each)
        assert [future.result() for future in asked] == [0, 0, 0]
    assert engine.bundle.version == 11


def test_the_table_of_the_site_is_part_of_the_bundle():
    kept = bundle(residency={"US": ["US"]})
    assert kept.digest() != bundle().digest()
    assert Engine(kept).decide(FACTS, (node("de", "DE"), node("us"))).permitted == ("node:us",)
    assert verify(sign(kept, [KEY]), [KEY.public_key()]) == kept


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"EEA": ["DE"]}, "'EEA' is not an ISO 3166 code"),
        ({"DE": ["Europe"]}, "'Europe' in the row DE"),
    ],
)
def test_a_table_that_names_no_jurisdiction_is_refused(table, message):
    with pytest.raises(BundleInvalid, match=message):
        bundle(residency=table)


def signed(payload, kind="application/vnd.bedside.bundle+json"):
    envelope = Envelope(payload, kind, {})
    envelope.sign(CryptoSigner(KEY))
    return json.dumps(envelope.to_dict()).encode()


def test_only_the_canonical_form_of_a_bundle_is_a_bundle():
    """Records name a bundle by its digest, so two forms of one would be two names."""
    fields = json.loads(bundle().payload())
    keys = [KEY.public_key()]
    assert verify(signed(bundle().payload()), keys) == bundle()
    with pytest.raises(BundleInvalid, match="canonical"):
        verify(signed(json.dumps(fields).encode()), keys)
    with pytest.raises(BundleInvalid, match="unknown field"):
        verify(signed(msgspec.json.encode({**fields, "extra": 1})), keys)
    with pytest.raises(BundleInvalid, match="format"):
        verify(signed(b"no json"), keys)
    with pytest.raises(BundleUntrusted, match="not a policy bundle"):
        verify(signed(bundle().payload(), "application/vnd.bedside.release+json"), keys)


@pytest.mark.parametrize(
    "document",
    [
        b"null",
        b"[" * 100_000,
        b" " * 17_000_000,
        b'{"payload":"","payloadType":"","signatures":[1]}',
    ],
    ids=["null", "deep", "long", "signatures"],
)
def test_what_is_no_document_is_not_trusted(document):
    with pytest.raises(BundleUntrusted):
        verify(document, [KEY.public_key()])


def test_a_bundle_on_disk(tmp_path):
    path = tmp_path / "policy" / "bundle.json"
    with pytest.raises(BundleUntrusted, match="cannot be read"):
        read_bundle(path, [KEY.public_key()])
    write_bundle(path, sign(bundle(), [KEY]))
    write_bundle(path, sign(bundle(2), [KEY]))
    assert read_bundle(path, [KEY.public_key()]) == bundle(2)
    assert [file.name for file in path.parent.iterdir()] == ["bundle.json"]


def test_a_sentence_says_where_why_and_where_not():
    engine = Engine(bundle())
    german = msgspec.structs.replace(FACTS, jurisdiction="DE")
    assert explain(engine.decide(german, (node("us"),)), german) == (
        "Refused: PHI data of DE for TREAT may not run on node:us, because personal data of the EEA is "
        "not transferred to a third country without adequate protection"
        " (GDPR Art. 44, Art. 45(1), Art. 46(2), Art. 47(1))."
    )
    phone = Candidate(
        placement="device:jane-doe", kind=PlacementKind.DEVICE, jurisdiction="US", holds_subject=True
    )
    held = msgspec.structs.replace(FACTS, on_device=True)
    sentence = explain(engine.decide(held, (node("us"), phone)), held)
    assert sentence.startswith(
        "Permitted: PHI data of US-CA for TREAT may run on the device that holds it"
    )
    assert "not on node:us, because data that a device holds stays on it" in sentence
    assert "jane" not in sentence
    emergency = msgspec.structs.replace(FACTS, purpose=Purpose.ETREAT, emergency=True)
    decision = engine.decide(emergency, (node("us"),))
    assert decision.break_glass
    assert explain(decision, emergency).startswith("Permitted, to be reviewed: ")
    nowhere = explain(engine.decide(FACTS, ()), FACTS)
    assert nowhere.startswith("Refused: PHI data of US-CA for TREAT may run nowhere")
