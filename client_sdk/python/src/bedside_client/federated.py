"""Federated work on a device: a Flower ClientApp that answers signed jobs with counts only.

What leaves is one int64 vector (`federated_counts.py`), signed with the device's own key, so that
nobody else's counts can stand in for this device's.
"""

import hashlib
import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey

from bedside_client.data import DataProvider, SqliteData
from bedside_client.errors import BedsideClientError
from bedside_client.federated_counts import Counts, count, nothing
from bedside_client.packages import PackageStore
from bedside_client.runtime import LocalModel
from bedside_client.state import DeviceState

PAYLOAD_TYPE: Final = "application/vnd.bedside.job+json"
STATE: Final = "bedside-state"
BINS_MAX: Final = 4096
WITHDRAWN: Final = "federated-withdrawn"

app = ClientApp()


class JobRefused(BedsideClientError):
    """Raised when this device does not take part in a job; nothing is returned then."""


class SignedJob(Struct, frozen=True, kw_only=True):
    """What the coordinator signed."""

    id: str
    site: str
    kind: str
    model: str
    version: str
    digest: str
    threshold: float
    bins: int
    cohort_minimum: int
    cohort_floor: int = 0
    expires: datetime


@app.query("evaluate")
def evaluate(message: Message, context: Context) -> Message:
    """Answer one evaluation job."""
    try:
        state = DeviceState.open(Path(str(context.node_config[STATE])))
        document = message.content.config_records["job"]["document"]
        if not isinstance(document, bytes):
            raise JobRefused("the job is not a signed document")
        reply = answer_job(state, document, SqliteData(state.data))
    except BedsideClientError:
        raise
    except Exception:  # noqa: BLE001 whatever it is, Flower would send its text to the coordinator
        raise JobRefused("this device failed to answer; the reason is withheld") from None
    return Message(content=reply, reply_to=message)


def answer_job(state: DeviceState, document: bytes, data: DataProvider) -> RecordDict:
    """Return this device's signed counts over its own rows, as a signed job asks.

    Raises:
        JobRefused: if consent was withdrawn here, or the job is not signed by a trusted key, is
            another site's, has expired, or asks for a smaller cohort than this device accepts.
        BedsideClientError: if the model is not here, does not verify or does not run.
    """
    if not consents(state):
        raise JobRefused("federated work is not consented to on this device")
    job = verify_job(state, document, datetime.now(UTC))
    package, model_bytes = PackageStore.of(state).load(job.model, job.version)
    if package.digest != job.digest:
        raise JobRefused("this device's model is not the one that the job names")
    counts = _evaluate(LocalModel(model_bytes), data, job)
    signature = state.identity.sign(signed_bytes(job.id, state.enrolment.device, counts))
    return RecordDict(
        {
            "counts": ArrayRecord({"vector": Array(counts)}),
            "sender": ConfigRecord(
                {"device": state.enrolment.device, "signature": bytes.fromhex(signature)}
            ),
        }
    )


def _evaluate(model: LocalModel, data: DataProvider, job: SignedJob) -> Counts:
    rows = list(data.rows())
    if not rows:
        return nothing(job.bins)
    x = np.stack([features for features, _ in rows])
    scores = model.run({model.inputs[0]: x})[model.outputs[0]][:, 1]
    return count(scores, [label for _, label in rows], job.threshold, job.bins)


def signed_bytes(job: str, device: str, counts: Counts) -> bytes:
    """Return what is signed: `bedside-reply:<job>:<device>:` and SHA-256 of the int64 LE counts."""
    digest = hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest()
    return f"bedside-reply:{job}:{device}:{digest}".encode()


def consents(state: DeviceState) -> bool:
    """Say whether the person lets this device take part in federated work."""
    return not (state.folder / WITHDRAWN).exists()


def set_consent(state: DeviceState, *, given: bool) -> None:
    """Give or withdraw consent to federated work; it holds from the next job on."""
    if given:
        (state.folder / WITHDRAWN).unlink(missing_ok=True)
    else:
        (state.folder / WITHDRAWN).touch()


def verify_job(state: DeviceState, document: bytes, now: datetime) -> SignedJob:
    """Return the job in `document`, if this device may answer it; raises JobRefused if not."""
    trusted: list[Key] = [
        SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)))
        for key in state.enrolment.trust.job_keys
    ]
    try:
        envelope = Envelope.from_dict(json.loads(document))
        envelope.verify(trusted, 1)
        job = msgspec.json.decode(envelope.payload, type=SignedJob)
    except (ValueError, KeyError, TypeError, AttributeError, VerificationError) as error:
        raise JobRefused("the job is not signed by a trusted key") from error
    if envelope.payload_type != PAYLOAD_TYPE or job.kind != "evaluate":
        raise JobRefused("the signed document is no job that this device knows")
    if job.site != state.enrolment.site:
        raise JobRefused("the job is another site's")
    if job.expires < now:
        raise JobRefused("the job has expired")
    # What the device was told when it enrolled, or what policies have come to ask for since.
    if job.cohort_minimum < max(state.enrolment.cohort_minimum, job.cohort_floor):
        raise JobRefused("the job accepts a smaller cohort than this device does")
    if not 1 <= job.bins <= BINS_MAX:
        raise JobRefused("the job asks for an impossible histogram")
    return job


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def supernode(state: DeviceState) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment that start this device's SuperNode.

    It opens no port but a loopback one of its own for the process that runs the ClientApp.

    Flower ships code with each run, and the SuperNode runs what its SuperLink sends. Flower 1.41 can
    refuse foreign code only by signatures of its public hub (`--trusted-entities`), which no run of
    one's own carries. So a device trusts whoever runs the SuperLink with its federated work; it
    checks everything else (job, cohort, model) itself. Without TLS, use it on one machine only.

    Raises:
        BedsideClientError: if the site runs no federated jobs.
    """
    superlink = state.enrolment.superlink
    if superlink is None:
        raise BedsideClientError("this site runs no federated jobs")
    command = [
        str(Path(sys.executable).with_name("flower-supernode")),
        "--insecure",
        "--superlink",
        superlink,
        "--host",
        "127.0.0.1",
        "--port",
        str(_free_port()),
        "--node-config",
        f'{STATE}="{state.folder}"',
    ]
    environment = {
        # Flower starts its own helpers by name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(state.folder / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # How often Flower's launcher looks for a message to answer; its default is 1 s.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
    }
    return command, environment
