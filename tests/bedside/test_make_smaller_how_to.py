"""The how-to makes a model smaller and serves it, command by command."""

import hashlib
import json
import re
import tomllib

import numpy as np
import pytest
from support import GatewayProcess, call, make_site
from support.digits import HOW_TO, how_to_commands, shell, write_script

from bedside.config import ModelEntry
from inference_node import NodeSettings


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder in which all commands but the last were run, and what they printed."""
    folder = tmp_path_factory.mktemp("digits")
    write_script(folder)
    *commands, _ = how_to_commands()
    assert len(commands) == 8
    done = shell(folder, *commands)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_its_commands_make_what_it_says(made):
    folder, done = made
    printed = done.stdout + done.stderr
    shown = re.findall(r"<!-- prints: (.*?) -->", HOW_TO.read_text())
    for expected in shown[:-1]:
        assert expected in printed, (expected, printed)
    assert not (folder / "refused.onnx").exists()
    assert not (folder / "refused.json").exists()
    assert not list(folder.glob(".compressing-*"))


def test_the_report_names_what_was_measured_and_holds_nothing_of_a_row(made):
    folder, _ = made
    for name, kind in (("model.int8", "static"), ("model.pruned", "structured pruning")):
        text = (folder / f"{name}.json").read_text()
        report = json.loads(text)
        content = (folder / f"{name}.onnx").read_bytes()
        assert report["model"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert report["model"]["size_bytes"] == len(content)
        assert report["method"]["kind"] == kind
        assert report["versions"].keys() >= {"bedside", "onnx", "onnxruntime-gpu"}
        rows = hashlib.sha256((folder / "rows.npz").read_bytes()).hexdigest()
        assert report["data_sha256"]["measured"] == rows
        comparison = report["comparison"]
        assert comparison["loss"] <= report["max_loss"]
        assert comparison["candidate_bytes"] < 0.6 * comparison["original_bytes"]
        assert comparison["candidate"]["accuracy"] > 0.85
        assert [latency["batch"] for latency in comparison["latencies"]] == [1, 32]
        assert len(text) < 4000


def test_the_smaller_model_is_served_as_a_version_beside_the_original(made, tmp_path):
    folder, _ = made
    (block,) = re.findall(r"```toml\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    shown = tomllib.loads(block)
    repository = folder / shown["node"]["repository"]
    models = {name: ModelEntry.model_validate(entry) for name, entry in shown["models"].items()}
    site = make_site(tmp_path, node=NodeSettings(repository=repository), models=models)
    with np.load(folder / "rows.npz") as file:
        x, labels = file["x"][:100], file["labels"][:100]
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}
    with GatewayProcess(site, tmp_path) as gateway:
        token = gateway.token()
        *_, command = how_to_commands()
        command = command.replace("http://127.0.0.1:8080", gateway.url)
        done = shell(folder, f"export TOKEN={token}", command)
        assert '"name":"digits"' in done.stdout
        answers = {}
        for version in ("1", "2"):
            url = f"{gateway.url}/v2/models/digits/versions/{version}/infer"
            reply = call("POST", url, token=token, body={"inputs": [tensor]})
            assert reply.json["model_version"] == version
            answers[version] = np.array(reply.json["outputs"][0]["data"]).reshape(100, 10)
    assert (answers["1"] != answers["2"]).any()
    chosen = {version: answer.argmax(1) for version, answer in answers.items()}
    assert (chosen["1"] == chosen["2"]).mean() > 0.9
    assert (chosen["2"] == labels).mean() > 0.85
