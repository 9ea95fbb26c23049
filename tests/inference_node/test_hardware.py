"""Which hardware runs a model, and what is said where the wanted one is not there: end to end.

Seen to fail: with `choose_provider` falling back to CPU, and with `Repository.open` not asking it.
"""

import subprocess

import onnxruntime
import pytest
from support import GatewayProcess, make_site, publish_linear
from support.nodes import NodeProcess

from bedside.children import bedside_command
from bedside.up import environment_of
from inference_node import Device, NodeSettings, RepositoryError, runtime
from inference_node.runtime import CPU, CUDA, NVIDIA_CONTROL, TENSORRT, choose_provider

no_gpu = pytest.mark.skipif(NVIDIA_CONTROL.exists(), reason="this machine has a GPU")


def on(folder, device):
    models = folder / "models"
    models.mkdir(exist_ok=True)
    return make_site(folder, node=NodeSettings(repository=models, device=device))


@no_gpu
@pytest.mark.parametrize("command", [("node", "--listen", "127.0.0.1:0"), ("gateway",)])
@pytest.mark.parametrize(
    ("device", "says"), [(Device.CUDA, "no working GPU"), (Device.TENSORRT, "with TensorRT")]
)
def test_a_gpu_that_does_not_work_is_one_line_and_status_1(tmp_path, command, device, says):
    site = on(tmp_path, device)
    ended = subprocess.run(
        bedside_command(*command),
        env={"PATH": "/usr/bin:/bin", **environment_of(site.config)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f'bedside: device = "{device}"')
    assert says in line


@no_gpu
def test_the_first_line_says_what_runs(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with NodeProcess(site, tmp_path, "node"), GatewayProcess(site, tmp_path):
        node, gateway = (tmp_path / f"{name}.log" for name in ("node", "gateway"))
        assert "on CPUExecutionProvider: breast-cancer/1 ready" in node.read_text()
        assert "node:local on CPUExecutionProvider" in gateway.read_text()


@pytest.mark.parametrize(
    ("device", "working", "chosen"),
    [
        (Device.AUTO, (), CPU),
        (Device.AUTO, (CUDA,), CUDA),
        (Device.AUTO, (CUDA, TENSORRT), CUDA),
        (Device.CPU, (CUDA, TENSORRT), CPU),
        (Device.CUDA, (CUDA,), CUDA),
        (Device.TENSORRT, (CUDA, TENSORRT), TENSORRT),
        (Device.CUDA, (), None),
        (Device.TENSORRT, (CUDA,), None),
    ],
)
def test_the_device_is_chosen_by_what_works(monkeypatch, device, working, chosen):
    monkeypatch.setattr(runtime, "works", lambda provider: provider in working)
    if chosen is None:
        with pytest.raises(RepositoryError, match=f'device = "{device}"'):
            choose_provider(device)
    else:
        assert choose_provider(device) == chosen


def test_a_provider_that_is_compiled_in_and_has_no_driver_does_not_work(monkeypatch, tmp_path):
    runtime.works.cache_clear()
    monkeypatch.setattr(runtime, "NVIDIA_CONTROL", tmp_path / "nothing")
    assert CUDA in onnxruntime.get_available_providers()
    assert not runtime.works(CUDA)
    runtime.works.cache_clear()
