"""What the benchmarks share: models, a Bedside of their own, processors, and figures.

A site lives in a folder that goes away afterwards; its log writes to the disk under that folder, with
every promise kept. Servers run on one processor and the load on another, where there are two.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from bedside.children import Child, bedside_command
from bedside.config import Config, ModelEntry
from bedside.site import Site
from bedside.up import environment_of
from inference_node import NodeSettings
from policies import Purpose, Role
from secure_gateway import GatewaySettings

SHAPES = {"tabular": (30,), "cnn": (1, 28, 28), "wide": (1024,)}
START_S = 90

_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = _CPUS[0], _CPUS[-1]


def pinned(cpu: int, command: Sequence[str]) -> list[str]:
    """Return `command` bound to one processor."""
    return ["taskset", "-c", str(cpu), *command]


def parser(doc: str | None, *, seconds: float, rounds: int = 3) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes: how long, how often, and where its files go."""
    made = argparse.ArgumentParser(
        description=(doc or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--seconds", type=float, default=seconds, help="length of one measurement")
    made.add_argument("--rounds", type=int, default=rounds, help="repeats; the median is shown")
    made.add_argument("--folder", type=Path, help="where the log's disk is (default: a temporary one)")
    return made


def body_of(model: str) -> bytes:
    """Return one JSON request for `model`."""
    random = np.random.default_rng(0)
    shape = [1, *SHAPES[model]]
    data = [round(float(value), 5) for value in random.random(int(np.prod(shape)))]
    return json.dumps(
        {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": data}]}
    ).encode()


def write_models(folder: Path, names: Sequence[str] = tuple(SHAPES)) -> None:
    """Write the models in Triton's layout: a classifier of 30 numbers, a small convolutional network,
    and a perceptron with 100 MB of weights, which gains by batches.
    """
    for name in names:
        path = folder / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(_MAKERS[name](), str(path))


class _Net:
    """Puts layers one behind the other."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.at = "x"

    def add(self, kind: str, *weights: np.ndarray, **attributes: Any) -> None:
        names = []
        for weight in weights:
            names.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(weight.astype(np.float32), names[-1]))
        output = f"h{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.at, *names], [output], **attributes))
        self.at = output

    def dense(self, inputs: int, outputs: int) -> None:
        weight = self.random.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        self.add("Gemm", weight, np.zeros(outputs))

    def convolution(self, inputs: int, outputs: int) -> None:
        weight = self.random.normal(size=(outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
        self.add("Conv", weight, np.zeros(outputs), pads=[1, 1, 1, 1])
        self.add("Relu")
        self.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])

    def model(self, name: str, outputs: int) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [self.at], ["y"]))
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPES[name]])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 10
        return made


def _tabular() -> onnx.ModelProto:
    net = _Net()
    net.dense(30, 64)
    net.add("Relu")
    net.dense(64, 2)
    net.add("Softmax", axis=-1)
    return net.model("tabular", 2)


def _cnn() -> onnx.ModelProto:
    net = _Net()
    net.convolution(1, 32)
    net.convolution(32, 64)
    net.add("Flatten")
    net.dense(64 * 49, 128)
    net.add("Relu")
    net.dense(128, 10)
    return net.model("cnn", 10)


def _wide() -> onnx.ModelProto:
    net = _Net()
    net.dense(1024, 4096)
    net.add("Relu")
    net.dense(4096, 4096)
    net.add("Relu")
    net.dense(4096, 1024)
    return net.model("wide", 1024)


_MAKERS = {"tabular": _tabular, "cnn": _cnn, "wide": _wide}


@contextlib.contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """A folder that goes away, in `folder` if one is given; also when the benchmark is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    made = Path(tempfile.mkdtemp(prefix="bedside-benchmark-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def make_site(folder: Path, models: Sequence[str], *, gateway: GatewaySettings | None = None) -> Site:
    """Make a site with the base, HIPAA, GDPR and residency policies and the named models."""
    if not (folder / "models").is_dir():
        write_models(folder / "models", models)
    entry = ModelEntry(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))
    return Site(
        Config(
            site="bench",
            data=folder / "site",
            gateway=gateway or GatewaySettings(port=free_port()),
            node=NodeSettings(repository=folder / "models"),
            models=dict.fromkeys(models, entry),
        )
    )


def token_of(site: Site) -> str:
    """Return a clinician's token."""
    return site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=3600)


def url_of(site: Site, model: str) -> str:
    """Return where the site's gateway infers with `model`."""
    return f"http://127.0.0.1:{site.config.gateway.port}/v2/models/{model}/infer"


@contextlib.contextmanager
def gateway_of(site: Site, *, cpu: int | None = SERVER_CPU) -> Iterator[Child]:
    """Run the site's gateway as a process, on one processor unless `cpu` is None."""
    with _running(site, "gateway", bedside_command("gateway"), cpu) as child:
        yield child


@contextlib.contextmanager
def node_of(site: Site, where: str, *, cpu: int | None = SERVER_CPU) -> Iterator[Child]:
    """Run a node as a process at `where`: host:port or unix:/path."""
    with _running(site, "node", bedside_command("node", "--listen", where), cpu) as child:
        yield child


@contextlib.contextmanager
def _running(site: Site, name: str, command: list[str], cpu: int | None) -> Iterator[Child]:
    child = Child(
        name,
        command if cpu is None else pinned(cpu, command),
        log=site.data.parent / f"{name}.log",
        environment=environment_of(site.config),
    )
    try:
        child.wait_for(lambda line: " ready at " in line, START_S)
        yield child
    finally:
        child.stop()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory_mb(child: Child) -> float:
    """Return the resident memory of a process, in MB."""
    return float(psutil.Process(child.pid).memory_info().rss) / 1e6


def median(values: Sequence[float]) -> float:
    """Return the median; 0 of nothing."""
    return statistics.median(values) if values else 0.0


def machine() -> str:
    """Say in a line what a table was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown processor",
    )
    return f"{model}, {len(_CPUS)} processors; server on {SERVER_CPU}, load on {LOAD_CPU}"
