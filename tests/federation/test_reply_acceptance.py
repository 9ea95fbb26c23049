import io

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from bedside_client.federated import signed_bytes as signed_by_device
from bedside_client.federated_counts import count
from coordinator.federated.replies import Reply, accepted, read_reply, signed_bytes
from coordinator.federated.statistics import BINS, Vector

COUNTS = count(np.array([0.2, 0.7], np.float32), [0, 1], 0.5, BINS)
KEYS = {f"device-{index}": Ed25519PrivateKey.generate() for index in range(3)}
COHORT = {device: key.public_key() for device, key in KEYS.items()}


def reply(device: str, signer: str | None = None, job: str = "job-1", vector: Vector = COUNTS) -> Reply:
    signature = KEYS[signer or device].sign(signed_by_device(job, device, vector))
    return Reply(device=device, signature=signature, vector=vector)


def test_device_and_coordinator_sign_and_check_the_same_bytes():
    assert signed_bytes("job-1", "device-1", COUNTS) == signed_by_device("job-1", "device-1", COUNTS)


def test_replies_of_the_cohort_are_accepted():
    assert len(accepted([reply(device) for device in KEYS], "job-1", COHORT)) == 3


def test_a_device_counts_once():
    larger = count(np.array([0.9] * 9, np.float32), [1] * 9, 0.5, BINS)
    (vector,) = accepted([reply("device-0"), reply("device-0", vector=larger)], "job-1", COHORT)
    assert (vector == COUNTS).all()


@pytest.mark.parametrize(
    "refused",
    [
        reply("device-0", signer="device-1"),
        reply("device-0", job="job-2"),
        Reply(device="device-9", signature=reply("device-0").signature, vector=COUNTS),
        Reply(device="device-0", signature=b"", vector=COUNTS),
        Reply(device="device-0", signature=reply("device-0").signature, vector=COUNTS + 1),
    ],
    ids=["another device's key", "another job", "not of the cohort", "unsigned", "changed"],
)
def test_what_no_device_of_the_cohort_signed_for_this_job_is_ignored(refused):
    assert accepted([refused], "job-1", COHORT) == []
    assert len(accepted([refused, reply("device-0")], "job-1", COHORT)) == 1


def message(vector: object = COUNTS, **sender: object) -> Message:
    fields = {"device": "device-0", "signature": b"s" * 64} | sender
    content = RecordDict({"sender": ConfigRecord(fields)})
    if isinstance(vector, np.ndarray):
        content["counts"] = ArrayRecord({"vector": Array(vector)})
    elif isinstance(vector, Array):
        content["counts"] = ArrayRecord({"vector": vector})
    return Message(content=content, dst_node_id=1, message_type="query.evaluate")


def test_a_well_formed_message_is_read():
    read = read_reply(message(), BINS)
    assert read is not None
    assert (read.device, read.signature) == ("device-0", b"s" * 64)
    assert (read.vector == COUNTS).all()


@pytest.mark.parametrize(
    "malformed",
    [
        message(None),
        message(COUNTS[:-1]),
        message(COUNTS.astype(np.float64)),
        message(np.full(COUNTS.shape, np.nan)),
        message(COUNTS.reshape(2, -1)),
        message(-COUNTS),
        message(Array(dtype="int64", shape=COUNTS.shape, stype="numpy.ndarray", data=b"no array")),
        message(Array(dtype="int64", shape=COUNTS.shape, stype="numpy.ndarray", data=b"")),
        message(device=7),
        message(signature="text"),
        Message(content=RecordDict(), dst_node_id=1, message_type="query.evaluate"),
        Message(Error(1, "failed"), reply_to=message()),
    ],
)
def test_a_malformed_message_is_ignored(malformed):
    assert read_reply(malformed, BINS) is None


@pytest.mark.parametrize("size", [1, COUNTS.size - 1, COUNTS.size + 1, 1 << 40])
def test_a_header_that_claims_another_size_allocates_nothing(size):
    header = Array(COUNTS).data[: -COUNTS.nbytes].replace(b"%d" % COUNTS.size, b"%d" % size)
    lying = Array(
        dtype="int64", shape=COUNTS.shape, stype="numpy.ndarray", data=header + COUNTS.tobytes()
    )
    assert read_reply(message(lying), BINS) is None


def test_a_pickled_array_is_never_loaded():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    bomb = Array(dtype="int64", shape=COUNTS.shape, stype="numpy.ndarray", data=stream.getvalue())
    assert read_reply(message(bomb), BINS) is None
