"""Federated work on a device: a Flower ClientApp that answers signed jobs with counts only.

What leaves is one int64 vector: rows, true and false positives, true and false negatives, then the
score histograms of both classes, binned by log-odds. The coordinator's `federated/statistics.py` says
the same.
"""

import json
import os
import socket
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey

from bedside_client.data import DataProvider, SqliteData
from bedside_client.errors import BedsideClientError
from bedside_client.packages import PackageStore
from bedside_client.runtime import LocalModel
from bedside_client.state import DeviceState

PAYLOAD_TYPE: Final = "application/vnd.bedside.job+json"
STATE: Final = "bedside-state"
BINS_MAX: Final = 4096
LOG_ODDS_MAX: Final = 16.0

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
    expires: datetime


@app.query("evaluate")
def evaluate(message: Message, context: Context) -> Message:
    """Answer one evaluation job."""
    state = DeviceState.open(Path(str(context.node_config[STATE])))
    document = message.content.config_records["job"]["document"]
    if not isinstance(document, bytes):
        raise JobRefused("the job is not a signed document")
    vector = answer_job(state, document, SqliteData(state.data))
    counts = ArrayRecord({"vector": Array(vector)})
    return Message(content=RecordDict({"counts": counts}), reply_to=message)


def answer_job(state: DeviceState, document: bytes, data: DataProvider) -> npt.NDArray[np.int64]:
    """Return the counts that a signed job asks of this device's own rows.

    Raises:
        JobRefused: if the job is not signed by a trusted key, is another site's, has expired, or
            asks for a smaller cohort than this device accepts.
        BedsideClientError: if the model is not here or does not verify.
    """
    job = verify_job(state, document, datetime.now(UTC))
    package, model_bytes = PackageStore.of(state).load(job.model, job.version)
    if package.digest != job.digest:
        raise JobRefused("this device's model is not the one that the job names")
    model = LocalModel(model_bytes)
    name = model.inputs[0]
    rows = list(data.rows())
    if not rows:
        return np.zeros(5 + 2 * job.bins, dtype=np.int64)
    x = np.stack([features for features, _ in rows])
    scores = model.run({name: x})[model.outputs[0]][:, 1]
    return count(scores, [label for _, label in rows], job.threshold, job.bins)


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
    if job.cohort_minimum < state.enrolment.cohort_minimum:
        raise JobRefused("the job accepts a smaller cohort than this device does")
    if not 1 <= job.bins <= BINS_MAX:
        raise JobRefused("the job asks for an impossible histogram")
    return job


def count(
    scores: npt.NDArray[Any], labels: Iterable[int], threshold: float, bins: int
) -> npt.NDArray[np.int64]:
    """Return the count vector for scores in [0, 1] and labels 0 or 1.

    Bins are even in the scores' log-odds from -16 to 16; beyond, the outermost bin counts.
    """
    truth = np.asarray(list(labels)) == 1
    said = scores >= threshold
    exact = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-12)
    odds = np.log(exact) - np.log1p(-exact)
    index = np.clip(((odds / LOG_ODDS_MAX + 1) / 2 * bins).astype(np.int64), 0, bins - 1)
    counts = [
        len(truth),
        int((said & truth).sum()),
        int((said & ~truth).sum()),
        int((~said & ~truth).sum()),
        int((~said & truth).sum()),
    ]
    return np.concatenate(
        [
            np.array(counts, dtype=np.int64),
            np.bincount(index[truth], minlength=bins),
            np.bincount(index[~truth], minlength=bins),
        ]
    ).astype(np.int64)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def supernode(state: DeviceState) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment that start this device's SuperNode.

    It opens no port but a loopback one of its own for the process that runs the ClientApp.

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
    }
    return command, environment
