import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sklearn.metrics import roc_auc_score

from audit.records import JobRecord, JobState, ReleaseRecord
from bedside_client.federated import set_consent
from bedside_client.federated_counts import count
from bedside_client.state import IDENTITY
from coordinator.federated.statistics import BINS
from policies import Role


def job_states(coordinator) -> list[JobState]:
    return [entry.state for entry in coordinator.records() if isinstance(entry, JobRecord)]


async def test_four_devices_give_the_pooled_metrics_and_no_single_count_is_kept(
    start_coordinator, enrol_device, start_supernode, classifier
):
    coordinator = await start_coordinator(cohort_minimum=4, job_timeout_s=90)
    patients = classifier[1]
    own = [slice(index, None, 4) for index in range(4)]
    for index, rows in enumerate(own):
        await start_supernode(await enrol_device(coordinator, f"device-{index}", rows))

    job = await coordinator.job({"model": "breast-cancer"})

    assert (job["state"], job["cohort"]) == ("done", 4), job["reason"]
    said, sick = patients.scores >= 0.4, patients.y == 1
    result = job["result"]
    assert result["rows"] == len(sick)
    assert result["accuracy"] == pytest.approx(np.mean(said == sick), abs=1e-9)
    assert result["sensitivity"] == pytest.approx(np.mean(said[sick]), abs=1e-9)
    assert result["specificity"] == pytest.approx(np.mean(~said[~sick]), abs=1e-9)
    assert result["ppv"] == pytest.approx(np.mean(sick[said]), abs=1e-9)
    assert result["npv"] == pytest.approx(np.mean(~sick[~said]), abs=1e-9)
    assert result["brier"] == pytest.approx(np.mean((patients.scores - sick) ** 2), abs=1e-5)
    assert result["auroc"] == pytest.approx(roc_auc_score(sick, patients.scores), abs=2e-3)
    assert job_states(coordinator) == [JobState.QUEUED, JobState.RUNNING, JobState.DONE]
    done = coordinator.records()[-1]
    assert (done.cohort, done.cohort_minimum, done.principal) == (4, 4, "engineer")
    assert sum(isinstance(entry, ReleaseRecord) for entry in coordinator.records()) == 1

    written = [path for path in coordinator.folder.rglob("*") if path.is_file()]
    for rows in own:
        counts = count(patients.scores[rows], patients.y[rows].tolist(), 0.4, BINS)
        raw = counts[6:].tobytes()
        text = ",".join(map(str, counts[:6].tolist())).encode()
        found = [path for path in written if raw in path.read_bytes() or text in path.read_bytes()]
        assert found == []


async def test_a_device_that_refuses_is_forged_or_revoked_leaves_no_result(
    start_coordinator, enrol_device, start_supernode
):
    coordinator = await start_coordinator(cohort_minimum=2, job_timeout_s=90)
    devices = [
        await enrol_device(coordinator, f"device-{index}", slice(index, None, 2)) for index in range(2)
    ]
    for state in devices:
        await start_supernode(state)

    set_consent(devices[0], given=False)
    job = await coordinator.job({"model": "breast-cancer"})
    assert (job["state"], job["result"]) == ("failed", None)
    assert job["reason"] == "too few devices answered with valid counts"

    set_consent(devices[0], given=True)
    (devices[1].folder / IDENTITY).write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    job = await coordinator.job({"model": "breast-cancer"})
    assert (job["state"], job["result"]) == ("failed", None)
    assert job["reason"] == "too few devices answered with valid counts"

    device = devices[1].enrolment.device
    await coordinator.call("DELETE", f"/v1/devices/{device}", Role.OPERATOR)
    body = {"model": "breast-cancer"}
    status, answer = await coordinator.call("POST", "/v1/federated/jobs", Role.ENGINEER, body)
    assert (status, answer["type"]) == (409, "urn:bedside:problem:job-refused")
    assert job_states(coordinator)[-2:] == [JobState.QUEUED, JobState.REFUSED]


def flower_processes(folder: Path) -> dict[int, str]:
    """The living processes that were started with Flower's home in `folder`, by their command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"FLWR_HOME={folder}".encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
    return {number: command for number, command in found.items() if command}


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for what another process does; there is no event to wait for."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 another process cannot set an event of ours
            await asyncio.sleep(0.05)


async def running_job(coordinator, enrol_device) -> None:
    """Submit a job that waits for devices which never connect, until its ServerApp runs."""
    for index in range(2):
        await enrol_device(coordinator, f"device-{index}", slice(index, None, 2))
    body = {"model": "breast-cancer"}
    status, _ = await coordinator.call("POST", "/v1/federated/jobs", Role.ENGINEER, body)
    assert status == 202
    commands = flower_processes
    await until(lambda: "flwr-serverapp" in " ".join(commands(coordinator.folder).values()))


async def test_stopping_during_a_run_fails_the_job_and_leaves_no_process(
    start_coordinator, enrol_device
):
    coordinator = await start_coordinator(cohort_minimum=2, job_timeout_s=120)
    await running_job(coordinator, enrol_device)
    await coordinator.stop()
    assert job_states(coordinator)[-1] == JobState.FAILED
    await until(lambda: not flower_processes(coordinator.folder), timeout_s=5)


async def test_a_killed_coordinator_takes_its_superlink_with_it(tmp_path):
    code = (
        "import asyncio, pathlib, sys\n"
        "from coordinator.federated.superlink import SuperLink\n"
        "async def main():\n"
        "    await SuperLink(pathlib.Path(sys.argv[1])).start()\n"
        "    print('started', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path / "flower"), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"started\n"
    assert flower_processes(tmp_path)
    owner.kill()
    await owner.wait()
    await until(lambda: not flower_processes(tmp_path))


async def test_a_job_fails_cleanly_when_the_superlink_is_killed(start_coordinator, enrol_device):
    coordinator = await start_coordinator(cohort_minimum=2, job_timeout_s=120)
    await running_job(coordinator, enrol_device)
    for number, command in flower_processes(coordinator.folder).items():
        if command.split("\0")[1].endswith("flower-superlink"):
            os.kill(number, signal.SIGKILL)
    await until(lambda: job_states(coordinator)[-1] is JobState.FAILED)
    await until(lambda: not flower_processes(coordinator.folder))
    _, (job,) = await coordinator.call("GET", "/v1/federated/jobs", Role.ENGINEER)
    assert job["reason"] == "Flower's SuperLink ended during the run"
    async with asyncio.timeout(5):
        _, health = await coordinator.call("GET", "/healthz", Role.ENGINEER)
    assert health == {"ready": True, "federation": False}
