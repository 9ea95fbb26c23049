"""What goes out and what comes back: the signed job that devices check, and the outcome of a run."""

import json
from datetime import datetime
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

PAYLOAD_TYPE: Final = "application/vnd.bedside.job+json"


class FederatedJob(Struct, frozen=True, kw_only=True):
    """What every device of a cohort is asked to do, in the same words.

    `cohort_floor` is the least `cohort_minimum` that the site and its policies allowed of any job then.
    """

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
    created: datetime
    expires: datetime


class Outcome(Struct, frozen=True, kw_only=True):
    """What a run leaves behind: the cohort's size and sum, or why there is none."""

    cohort: int
    total: list[int] | None = None
    problem: str | None = None


def sign_job(job: FederatedJob, key: Ed25519PrivateKey) -> bytes:
    """Return the job as a signed document."""
    envelope = Envelope(msgspec.json.encode(job, order="deterministic"), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return json.dumps(envelope.to_dict()).encode()
