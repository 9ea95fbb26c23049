"""What a load that fails leaves as it was, and what it says, while files come and go.

Seen to fail: with version folders that are passed over where they hold no model file, and with `swap`
retiring what a failed load neither replaced nor named.
"""

import shutil

import pytest
from support import linear_model
from support.repositories import constant_model, lay_out, request, states
from support.served_models import serving

from inference_node import ModelNotReady, repository

LATEST = "version_policy { latest { num_versions: %d } }"


async def answer(node, version=None):
    """Which version answers, and with what."""
    response = await node.infer("m", version, request())
    return response.model_version, response.outputs[0].array[0, 0]


@pytest.mark.parametrize(
    ("config", "others"),
    [("", {"1": "READY"}), (LATEST % 1, {}), ('default_model_filename: "own.onnx"', {})],
)
async def test_a_version_without_its_model_file_is_reported(tmp_path, config, others):
    folder = lay_out(tmp_path, config)
    (folder / "2").mkdir()
    name = "own.onnx" if "own" in config else "model.onnx"
    async with serving(tmp_path) as node:
        expected = {"2": f"missing: it has no {name}", **others}
        assert {version: state for (_, version), state in states(node).items()} == expected
        assert not node.ready


@pytest.mark.parametrize("kept", [1, 2])
async def test_a_version_that_is_half_copied_takes_none_down_and_serves_once_it_is_whole(
    tmp_path, kept
):
    folder = tmp_path / "m"
    for version in (1, 2):
        constant_model(folder / f"{version}/model.onnx", version)
    (folder / "config.pbtxt").write_text(LATEST % kept)
    async with serving(tmp_path) as node:
        (folder / "3").mkdir()
        with pytest.raises(ModelNotReady, match=r"version 3: missing: it has no model\.onnx"):
            await node.load("m")
        assert await answer(node) == ("2", 2)
        serve = [version for (_, version), state in states(node).items() if state == "READY"]
        assert serve == ["1", "2"][-kept:]
        constant_model(folder / "3/model.onnx", 3)
        await node.load("m")
        assert await answer(node) == ("3", 3)
        assert node.ready
        assert set(states(node).values()) == {"READY"}
        assert len(states(node)) == kept


@pytest.mark.parametrize("config", ["", LATEST % 1, "version_policy { specific { versions: [1] } }"])
@pytest.mark.parametrize("what", ["model.onnx", "1", "all"])
async def test_files_that_are_gone_for_a_moment_take_down_nothing_that_serves(tmp_path, config, what):
    folder = tmp_path / "m"
    constant_model(folder / "1/model.onnx", 1)
    (folder / "config.pbtxt").write_text(config) if config else None
    async with serving(tmp_path) as node:
        if what == "model.onnx":
            (folder / "1/model.onnx").unlink()
        else:
            shutil.rmtree(folder / "1")
        if what == "all":
            (folder / "config.pbtxt").unlink(missing_ok=True)
        with pytest.raises(ModelNotReady, match="missing"):
            await node.load("m")
        assert await answer(node) == ("1", 1)
        assert not node.ready
        constant_model(folder / "1/model.onnx", 2)
        await node.load("m")
        assert await answer(node) == ("1", 2)
        assert states(node) == {("m", "1"): "READY"}


async def test_a_configuration_that_is_broken_takes_down_no_version_that_is_gone_from_disk(tmp_path):
    folder = lay_out(tmp_path, versions=(1, 2))
    async with serving(tmp_path) as node:
        shutil.rmtree(folder / "1")
        (folder / "config.pbtxt").write_text("max_batch_size: eight")
        with pytest.raises(ModelNotReady, match="version 2: config"):
            await node.load("m")
        assert (await answer(node, "1"))[0] == "1"


async def test_what_is_loaded_serves_though_another_version_fails_and_takes_the_rest_s_place_later(
    tmp_path,
):
    folder = tmp_path / "m"
    for version in (1, 2):
        constant_model(folder / f"{version}/model.onnx", version)
    async with serving(tmp_path) as node:
        shutil.rmtree(folder / "1")
        constant_model(folder / "2/model.onnx", 20)
        (folder / "3").mkdir()
        with pytest.raises(ModelNotReady, match="version 3"):
            await node.load("m")
        assert await answer(node) == ("2", 20)
        assert await answer(node, "1") == ("1", 1)
        shutil.rmtree(folder / "3")
        await node.load("m")
        assert states(node) == {("m", "2"): "READY"}


async def test_an_empty_folder_is_no_model(tmp_path):
    linear_model(tmp_path / "right/1/model.onnx")
    async with serving(tmp_path) as node:
        (tmp_path / "m").mkdir()
        with pytest.raises(ModelNotReady, match="version none: missing: it has no version"):
            await node.load("m")
        assert states(node)["m", ""] == "missing: it has no version"


async def test_a_folder_that_cannot_be_read_takes_no_other_model_down(tmp_path, monkeypatch):
    lay_out(tmp_path)
    linear_model(tmp_path / "right/1/model.onnx")
    on_disk = repository._on_disk

    def denied(folder, *rest):
        if folder.name == "m":
            raise PermissionError
        return on_disk(folder, *rest)

    monkeypatch.setattr(repository, "_on_disk", denied)
    async with serving(tmp_path) as node:
        reason = "broken: the model's folder cannot be read"
        assert states(node) == {("m", ""): reason, ("right", "1"): "READY"}


async def test_a_version_that_the_policy_names_is_a_version_folder(tmp_path):
    lay_out(tmp_path, "version_policy { specific { versions: [0, 1, -1] } }", versions=(0, 1))
    async with serving(tmp_path) as node:
        missing = "missing: version_policy names it and it is not on disk"
        assert states(node) == {("m", "-1"): missing, ("m", "0"): missing, ("m", "1"): "READY"}
