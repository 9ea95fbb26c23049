import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import linear_model

from bedside_client import PackageRejected
from bedside_client.packages import PackageStore
from coordinator import (
    ReleasedEquivalence,
    ReleasedTensor,
    build_release,
    sign_release,
)

KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def store(tmp_path):
    return PackageStore(tmp_path / "models", (KEY.public_key().public_bytes_raw().hex(),))


def package(folder, model="sepsis", version=1, key=KEY, features=3):
    path = folder / f"{model}-{version}-{features}.onnx"
    linear_model(path, features=features)
    release = build_release(
        path,
        model=model,
        version=version,
        inputs=[ReleasedTensor(name="x", datatype="FP32", shape=(-1, 3))],
        outputs=[ReleasedTensor(name="y", datatype="FP32", shape=(-1, 2))],
        equivalence=ReleasedEquivalence(rows=1, max_abs_difference=0, tolerance=1e-5),
        checkpoint_sha256="0" * 64,
        threshold=0.5,
    )
    return sign_release(release, key), path.read_bytes()


def test_a_released_package_is_installed_and_loaded(store, tmp_path):
    document, data = package(tmp_path)
    installed = store.install(document, data, "sepsis")
    assert store.load("sepsis") == (installed, data)
    assert store.packages() == [installed]


def test_an_altered_model_is_rejected(store, tmp_path):
    document, data = package(tmp_path)
    with pytest.raises(PackageRejected, match="not the one that was released"):
        store.install(document, data[:-1] + b"\0", "sepsis")
    assert store.packages() == []


def test_a_wrong_signer_is_rejected(store, tmp_path):
    document, data = package(tmp_path, key=Ed25519PrivateKey.generate())
    with pytest.raises(PackageRejected, match="trusted release key"):
        store.install(document, data, "sepsis")


def test_a_swapped_name_is_rejected(store, tmp_path):
    document, data = package(tmp_path, model="asthma")
    with pytest.raises(PackageRejected, match="another model"):
        store.install(document, data, "sepsis")


def test_an_old_version_cannot_be_played_back(store, tmp_path):
    store.install(*package(tmp_path, version=2), "sepsis")
    with pytest.raises(PackageRejected, match="older"):
        store.install(*package(tmp_path, version=1), "sepsis")


def test_a_model_that_was_changed_on_the_device_is_not_loaded(store, tmp_path):
    store.install(*package(tmp_path), "sepsis")
    path = tmp_path / "models/sepsis/1/model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(PackageRejected):
        store.load("sepsis")


@pytest.mark.parametrize("name", ["../sepsis", "", "sepsis/1", "Sepsis", "a" * 99])
def test_no_name_leads_out_of_the_folder(store, name):
    with pytest.raises(PackageRejected):
        store.load(name)


@pytest.mark.parametrize("document", [b"", b"{}", b"[1]", json.dumps({"payload": 1}).encode()])
def test_what_is_no_release_is_rejected(store, document):
    with pytest.raises(PackageRejected):
        store.install(document, b"", "sepsis")
