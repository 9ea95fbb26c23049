from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Message, RecordDict

from bedside_client.data import SqliteData
from bedside_client.errors import BedsideClientError, ModelFailed, StateError
from bedside_client.federated import JobRefused, answer_job, evaluate, set_consent
from bedside_client.federated_counts import count
from bedside_client.keys import DeviceIdentity
from bedside_client.packages import PackageStore
from bedside_client.state import IDENTITY, DeviceState, Enrolment, Trust
from coordinator import ReleasedEquivalence, build_release, sign_release
from coordinator.federated.job import FederatedJob, sign_job
from coordinator.federated.replies import accepted, read_reply
from coordinator.federated.statistics import BINS

JOB_KEY, RELEASE_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def raw(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


@pytest.fixture
def device(tmp_path: Path, classifier) -> DeviceState:
    """A device with the release and 50 patients."""
    model, patients = classifier
    artifact = tmp_path / "model.onnx"
    onnx.save(model, artifact)
    release = build_release(
        artifact,
        model="breast-cancer",
        version=1,
        inputs=[],
        outputs=[],
        equivalence=ReleasedEquivalence(rows=1, max_abs_difference=0, tolerance=1),
        checkpoint_sha256="0" * 64,
        threshold=0.4,
    )
    folder = tmp_path / "device"
    folder.mkdir()
    DeviceIdentity.open(folder / IDENTITY)
    state = DeviceState.create(
        folder,
        Enrolment(
            device="device-1",
            site="mercy",
            gateway_url="http://gateway",
            coordinator_url="http://coordinator",
            trust=Trust(release_keys=(raw(RELEASE_KEY),), job_keys=(raw(JOB_KEY),)),
            cohort_minimum=4,
        ),
    )
    document = sign_release(release, RELEASE_KEY)
    PackageStore.of(state).install(document, artifact.read_bytes(), "breast-cancer")
    SqliteData(state.data).write(
        (f"patient {index}", patients.x[index], int(patients.y[index])) for index in range(50)
    )
    return state


def job_for(device: DeviceState, key: Ed25519PrivateKey = JOB_KEY, **changes: object) -> bytes:
    package, _ = PackageStore.of(device).load("breast-cancer")
    now = datetime.now(UTC)
    fields = {
        "id": "job-1",
        "site": "mercy",
        "kind": "evaluate",
        "model": "breast-cancer",
        "version": "1",
        "digest": package.digest,
        "threshold": 0.4,
        "bins": BINS,
        "cohort_minimum": 4,
        "created": now,
        "expires": now + timedelta(minutes=1),
    }
    return sign_job(FederatedJob(**(fields | changes)), key)


def ask(device: DeviceState, document: object) -> Message:
    content = RecordDict({"job": ConfigRecord({"document": document})})
    message = Message(content=content, dst_node_id=1, message_type="query.evaluate")
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"bedside-state": str(device.folder)},
        state=RecordDict(),
        run_config={},
    )
    return evaluate(message, context)


def test_a_device_answers_with_its_signed_counts_and_nothing_else(device, classifier):
    answer = ask(device, job_for(device))
    assert sorted(answer.content) == ["counts", "sender"]
    assert sorted(answer.content["sender"]) == ["device", "signature"]
    assert list(answer.content["counts"]) == ["vector"]
    reply = read_reply(answer, BINS)
    assert reply is not None
    key = Ed25519PrivateKey.from_private_bytes(device.identity._key.private_bytes_raw()).public_key()
    (vector,) = accepted([reply], "job-1", {"device-1": key})
    patients = classifier[1]
    expected = count(patients.scores[:50], patients.y[:50].tolist(), 0.4, BINS)
    assert (vector[:5] == expected[:5]).all()
    assert vector[6:].sum() == 50


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cohort_minimum": 3}, "smaller cohort"),
        ({"digest": "0" * 64}, "not the one that the job names"),
        ({"site": "elsewhere"}, "another site"),
        ({"kind": "tune"}, "no job that this device knows"),
        ({"bins": 1 << 20}, "impossible histogram"),
        ({"bins": 0}, "impossible histogram"),
        ({"expires": datetime.now(UTC) - timedelta(seconds=1)}, "expired"),
    ],
)
def test_a_signed_job_that_asks_for_too_much_is_refused(device, changes, why):
    with pytest.raises(JobRefused, match=why):
        answer_job(device, job_for(device, **changes), SqliteData(device.data))


def test_a_job_by_another_key_is_refused(device):
    for key in (Ed25519PrivateKey.generate(), RELEASE_KEY):
        with pytest.raises(JobRefused, match="not signed by a trusted key"):
            answer_job(device, job_for(device, key), SqliteData(device.data))


@pytest.mark.parametrize("document", [b"", b"{}", b"null", b"[1]", b"\xff", "text", 7])
def test_what_is_no_signed_job_is_refused(device, document):
    with pytest.raises(JobRefused):
        ask(device, document)


def test_a_release_document_is_no_job(device):
    document = (device.models / "breast-cancer" / "1" / "release.json").read_bytes()
    with pytest.raises(JobRefused):
        answer_job(device, document, SqliteData(device.data))


def test_an_altered_model_is_not_run(device):
    document = job_for(device)
    (device.models / "breast-cancer" / "1" / "model.onnx").write_bytes(b"altered")
    with pytest.raises(BedsideClientError, match="not the one that was released"):
        answer_job(device, document, SqliteData(device.data))


def test_withdrawn_consent_refuses_and_given_again_answers(device):
    set_consent(device, given=False)
    with pytest.raises(JobRefused, match="not consented"):
        ask(device, job_for(device))
    set_consent(device, given=True)
    assert read_reply(ask(device, job_for(device)), BINS) is not None


def test_a_device_without_rows_answers_with_zeros(device):
    device.data.unlink()
    SqliteData(device.data).write([])
    reply = read_reply(ask(device, job_for(device)), BINS)
    assert reply is not None
    assert not reply.vector.any()


def test_a_failure_tells_the_coordinator_nothing_of_the_data(device):
    device.data.unlink()
    SqliteData(device.data).write(
        [("a", np.zeros(30, np.float32), 0), ("b", np.zeros(29, np.float32), 1)]
    )
    with pytest.raises(JobRefused, match="reason is withheld") as caught:
        ask(device, job_for(device))
    assert caught.value.__suppress_context__


def test_labels_and_scores_outside_their_range_are_refused():
    with pytest.raises(StateError, match="label"):
        count(np.array([0.5], np.float32), [2], 0.5, BINS)
    for score in (np.nan, -0.1, 1.1, np.inf):
        with pytest.raises(ModelFailed, match="not probabilities"):
            count(np.array([score], np.float32), [1], 0.5, BINS)
