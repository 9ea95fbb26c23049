"""A coordinator with its SuperLink, and devices with their SuperNodes, all real and on loopback."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.supercore.task_identity import TaskIdentity
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.policy import Approval
from support.reporting import report_maker

from audit import Log, Pseudonymizer
from audit.records import AnyRecord, decode
from bedside.serving import serve_coordinator
from bedside_client.data import SqliteData
from bedside_client.enrolment import enroll
from bedside_client.federated import supernode
from bedside_client.packages import fetch
from bedside_client.state import DeviceState
from coordinator import (
    CoordinatorSettings,
    ReleasedEquivalence,
    ReleasedTensor,
    ReleaseFolder,
    build_release,
    sign_release,
)
from coordinator.run import CoordinatorInputs
from policies import ModelAccess, Purpose, Role, TokenIssuer, TokenVerifier, build_bundle

# Flower makes messages inside the process of a task only; tests make them in their own.
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

SITE = "mercy"
MODEL = "breast-cancer"
THRESHOLD = 0.4


@dataclass(frozen=True)
class Patients:
    """Features float32 [n, 30], labels int64 [n], and the scores that the model gives them."""

    x: np.ndarray
    y: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Coordinator:
    """A running coordinator, its log, and what speaks to it."""

    url: str
    log: Log
    issuer: TokenIssuer
    folder: Path
    stop: Callable[[], Awaitable[None]]

    def headers(self, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.issue(role.value, [role], lifetime_s=600)}"}

    async def call(self, method: str, path: str, role: Role, body: object = None) -> tuple[int, dict]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body, headers=self.headers(role)) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    def records(self) -> list[AnyRecord]:
        return [decode(leaf) for leaf in self.log.entries(0, self.log.size)]

    async def job(self, body: dict[str, object]) -> dict:
        """Submit a job and return it once it has ended."""
        status, job = await self.call("POST", "/v1/federated/jobs", Role.ENGINEER, body)
        assert status == 202, job
        async with asyncio.timeout(120):
            while job["state"] in ("queued", "running"):
                await asyncio.sleep(0.1)
                _, job = await self.call("GET", f"/v1/federated/jobs/{job['id']}", Role.ENGINEER)
        return job


@pytest.fixture(scope="session")
def classifier() -> tuple[onnx.ModelProto, Patients]:
    """A logistic regression as ONNX, and held-out patients with its scores."""
    x, y = load_breast_cancer(return_X_y=True)
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.05)).fit(x[:150], y[:150])
    scaler, regression = fitted[0], fitted[1]
    weight = (regression.coef_[0] / scaler.scale_).astype(np.float32)
    bias = np.float32(regression.intercept_[0] - (regression.coef_[0] / scaler.scale_) @ scaler.mean_)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 30])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [
            numpy_helper.from_array(np.stack([np.zeros(30, np.float32), weight], axis=1), "w"),
            numpy_helper.from_array(np.array([0, bias], np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    held_out = x[150:].astype(np.float32)
    logits = held_out.astype(np.float64) @ weight.astype(np.float64) + float(bias)
    return model, Patients(x=held_out, y=y[150:], scores=1 / (1 + np.exp(-logits)))


@pytest.fixture
async def start_coordinator(
    tmp_path: Path, classifier: tuple[onnx.ModelProto, Patients]
) -> AsyncIterator[Callable[..., Awaitable[Coordinator]]]:
    """Start coordinators with one release published; each is stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: object) -> Coordinator:
            return await stack.enter_async_context(_coordinator(tmp_path, classifier[0], settings))

        yield start


@contextlib.asynccontextmanager
async def _coordinator(
    folder: Path, model: onnx.ModelProto, settings: dict[str, object]
) -> AsyncIterator[Coordinator]:
    release_key, issuer_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    artifact = folder / "model.onnx"
    onnx.save(model, artifact)
    release = build_release(
        artifact,
        model=MODEL,
        version=1,
        inputs=[ReleasedTensor(name="x", datatype="FP32", shape=(-1, 30))],
        outputs=[ReleasedTensor(name="probabilities", datatype="FP32", shape=(-1, 2))],
        equivalence=ReleasedEquivalence(rows=100, max_abs_difference=0.0, tolerance=1e-5),
        checkpoint_sha256="0" * 64,
        threshold=THRESHOLD,
    )
    releases = ReleaseFolder(folder / "models", [release_key.public_key()])
    releases.publish(sign_release(release, release_key), artifact)
    access = ModelAccess(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))
    log = await Log.open(folder / "log", origin=f"{SITE}/coordinator", key=Ed25519PrivateKey.generate())
    bundle = build_bundle(("base",), name=SITE, version=1, models={MODEL: access})
    approval = Approval(folder / "policy", SITE)
    listener = socket.create_server(("127.0.0.1", 0))
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_coordinator(
            CoordinatorInputs(
                site=SITE,
                settings=CoordinatorSettings.model_validate(settings),
                folder=folder / "coordinator",
                log=log,
                policies=approval.keeper(bundle),
                desk=approval.desk(),
                log_sources=list,
                reports=report_maker(SITE, folder / "log", log),
                tokens=TokenVerifier([issuer_key.public_key()], SITE),
                pseudonymizer=Pseudonymizer(bytes(32)),
                releases=releases,
                registry_key=Ed25519PrivateKey.generate(),
                job_key=Ed25519PrivateKey.generate(),
                release_keys=(release_key.public_key().public_bytes_raw().hex(),),
            ),
            listener,
            stop,
            ready.set_result,
        )
    )
    try:
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving

        async def end() -> None:
            stop.set()
            await serving

        yield Coordinator(await ready, log, TokenIssuer(issuer_key, SITE), folder, end)
    finally:
        stop.set()
        await serving


@pytest.fixture
def enrol_device(
    tmp_path: Path, classifier: tuple[onnx.ModelProto, Patients]
) -> Callable[..., Awaitable[DeviceState]]:
    """Enrol devices that hold the release and the given rows of the held-out patients."""
    patients = classifier[1]

    async def enrol(coordinator: Coordinator, name: str, rows: slice) -> DeviceState:
        subjects = [f"patient {index}" for index in range(*rows.indices(len(patients.y)))]
        status, answer = await coordinator.call(
            "POST",
            "/v1/devices/codes",
            Role.OPERATOR,
            {"jurisdiction": "US-CA", "subjects": subjects},
        )
        assert status == 201, answer
        state = await enroll(coordinator.url, answer["code"], tmp_path / name)
        await fetch(state, MODEL)
        SqliteData(state.data).write(
            zip(subjects, patients.x[rows], patients.y[rows].tolist(), strict=True)
        )
        return state

    return enrol


@pytest.fixture
async def start_supernode() -> AsyncIterator[Callable[[DeviceState], Awaitable[None]]]:
    """Start the SuperNodes of devices; each is a group that ends as a whole."""
    running: list[asyncio.subprocess.Process] = []

    async def start(state: DeviceState) -> None:
        command, environment = supernode(state)
        with (state.folder / "supernode.log").open("ab") as log:
            running.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    env={**os.environ, **environment},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    yield start
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in running:
        await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
