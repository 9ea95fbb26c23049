import json
import math

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.records import ReleaseRecord
from bedside_client.packages import PackageStore
from coordinator import ReleasedEquivalence, ReleaseError, sign_release, verify_release
from coordinator.catalogue import Catalogue
from inference_node.releases import verify_release as verify_on_node


def raw(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def test_a_published_release_is_accepted_by_node_and_device(releases, make_release, keys, tmp_path):
    release, document, artifact = make_release()
    published, new = releases.publish(document, artifact)
    assert (published, new) == (release, True)
    folder = releases.path("sepsis", "1")
    verify_on_node(folder, "sepsis", "1", release.digest, (raw(keys.release),))
    on_device = PackageStore(tmp_path / "device", (raw(keys.release),))
    package = on_device.install(document, artifact.read_bytes(), "sepsis")
    assert (package.digest, package.threshold) == (release.digest, 0.5)


def test_publishing_the_same_release_again_changes_nothing(releases, make_release):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    assert releases.publish(document, artifact)[1] is False
    assert [release.version for release in releases.list()] == ["1"]


def test_a_version_is_never_replaced_by_another_file(releases, make_release):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    _, other, artifact = make_release(content=b"another model")
    with pytest.raises(ReleaseError, match="never replaced"):
        releases.publish(other, artifact)


def test_a_version_below_the_newest_is_refused(releases, make_release):
    _, document, artifact = make_release(version=3)
    releases.publish(document, artifact)
    _, older, artifact = make_release(version=2)
    with pytest.raises(ReleaseError, match="version 3 is published already"):
        releases.publish(older, artifact)


@pytest.mark.parametrize("difference", [1e-4, math.nan, -1.0])
def test_an_artifact_that_differs_from_its_checkpoint_is_refused(make_release, difference):
    equivalence = ReleasedEquivalence(rows=8, max_abs_difference=difference, tolerance=1e-5)
    with pytest.raises(ReleaseError, match="equivalent"):
        make_release(equivalence=equivalence)


def test_publishing_checks_what_the_document_says_of_equivalence(releases, make_release, keys):
    release, _, artifact = make_release()
    unchecked = ReleasedEquivalence(rows=0, max_abs_difference=0, tolerance=1)
    fields = {name: getattr(release, name) for name in release.__struct_fields__}
    document = sign_release(type(release)(**(fields | {"equivalence": unchecked})), keys.release)
    with pytest.raises(ReleaseError, match="equivalent"):
        releases.publish(document, artifact)


def test_a_release_by_another_key_is_refused(make_release):
    _, document, artifact = make_release()
    with pytest.raises(ReleaseError, match="not signed"):
        verify_release(document, [Ed25519PrivateKey.generate().public_key()], artifact)


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[]", b"null", b'{"payload": 1}', b"\xff", b'{"signatures": {}}']
)
def test_what_is_no_release_is_refused(make_release, keys, document):
    _, _, artifact = make_release()
    with pytest.raises(ReleaseError):
        verify_release(document, [keys.release.public_key()], artifact)


def test_a_changed_document_is_refused(make_release, keys):
    _, document, artifact = make_release()
    envelope = json.loads(document)
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="
    with pytest.raises(ReleaseError):
        verify_release(json.dumps(envelope).encode(), [keys.release.public_key()], artifact)


def test_a_changed_model_file_is_not_served(releases, make_release):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    (releases.path("sepsis", "1") / "model.onnx").write_bytes(b"another model")
    with pytest.raises(ReleaseError, match=r"sepsis version 1 cannot be served: model\.onnx is not"):
        releases.find("sepsis", None)


def test_a_release_under_another_name_is_not_served(releases, make_release):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    releases.path("sepsis", "1").rename(releases.root / "sepsis" / "2")
    with pytest.raises(ReleaseError, match="another model or version"):
        releases.find("sepsis", "2")


@pytest.mark.parametrize(
    ("model", "version"), [("../etc", None), ("sepsis", "../1"), ("sepsis", "01"), ("other", None)]
)
def test_names_that_are_no_release_find_nothing(releases, make_release, model, version):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    with pytest.raises(ReleaseError, match="no such release"):
        releases.find(model, version)


def test_the_newest_version_is_the_largest_number(releases, make_release):
    for version in (9, 10):
        _, document, artifact = make_release(version=version)
        releases.publish(document, artifact)
    assert releases.find("sepsis", None)[0].version == "10"


async def test_a_release_is_recorded_before_it_is_first_served_and_only_once(
    releases, make_release, store, record, recorded
):
    release, document, artifact = make_release()
    releases.publish(document, artifact)
    catalogue = Catalogue(releases, store, record)
    await catalogue.find("sepsis", None)
    await catalogue.list()
    (entry,) = recorded()
    assert isinstance(entry, ReleaseRecord)
    assert (entry.model, entry.model_version, entry.model_digest) == ("sepsis", "1", release.digest)


async def test_a_signed_file_put_in_place_of_a_served_one_is_not_served(
    releases, make_release, store, record
):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    catalogue = Catalogue(releases, store, record)
    await catalogue.find("sepsis", "1")
    _, document, artifact = make_release(content=b"another model")
    folder = releases.path("sepsis", "1")
    (folder / "release.json").write_bytes(document)
    (folder / "model.onnx").write_bytes(artifact.read_bytes())
    with pytest.raises(ReleaseError, match="not the file first published"):
        await catalogue.find("sepsis", "1")
