"""Which replies count: well-formed, signed for this job by a device of the cohort, one for each.

Flower without TLS lets anything that reaches the SuperLink call itself a node. So a node's word is
not taken for it: each reply is signed with the key that the device was enrolled with, and one who
adds nodes of its own cannot fill up a cohort to read a single device's counts out of the sum.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import Message
from msgspec import Struct

from coordinator.errors import JobError
from coordinator.federated.statistics import Vector, check, length

PREFIX: Final = "bedside-reply"

_SENDER: Final = "sender"
_COUNTS: Final = "counts"
_VECTOR: Final = "vector"


class Reply(Struct, frozen=True, kw_only=True):
    """One reply as it came: who says to have sent it, the signature, the counts."""

    device: str
    signature: bytes
    vector: Vector


def signed_bytes(job: str, device: str, vector: Vector) -> bytes:
    """Return what is signed: `bedside-reply:<job>:<device>:` and SHA-256 of the int64 LE vector."""
    digest = hashlib.sha256(vector.astype("<i8").tobytes()).hexdigest()
    return f"{PREFIX}:{job}:{device}:{digest}".encode()


def read_reply(message: Message, bins: int) -> Reply | None:
    """Return the reply in a message, or None if it is an error or not formed like one."""
    if message.has_error():
        return None
    config = message.content.config_records.get(_SENDER)
    arrays = message.content.array_records.get(_COUNTS)
    array = None if arrays is None else arrays.get(_VECTOR)
    if config is None or array is None:
        return None
    device, signature = config.get("device"), config.get("signature")
    if not isinstance(device, str) or not isinstance(signature, bytes):
        return None
    try:
        vector = check(_decode(array.data, length(bins)), bins)
    except JobError:
        return None
    return Reply(device=device, signature=signature, vector=vector)


def _decode(data: bytes, size: int) -> Vector:
    """Return an int64 vector of `size` from NumPy's file format, as Flower carries arrays.

    `numpy.load` would allocate what a header claims and fail in many ways; there is only one way to
    write this vector, so anything else is refused.
    """
    header = _header(size)
    if not data.startswith(header) or len(data) != len(header) + 8 * size:
        raise JobError("a reply is not an int64 vector of the job's length")
    return np.frombuffer(data, dtype="<i8", offset=len(header)).astype(np.int64)


@cache
def _header(size: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(size, dtype="<i8"))
    return stream.getvalue()[: -8 * size]


def accepted(
    replies: Iterable[Reply], job: str, cohort: Mapping[str, Ed25519PublicKey]
) -> list[Vector]:
    """Return the counts of each device of `cohort` that signed for `job`; a second reply is ignored."""
    found: dict[str, Vector] = {}
    for reply in replies:
        key = cohort.get(reply.device)
        if key is None or reply.device in found:
            continue
        try:
            key.verify(reply.signature, signed_bytes(job, reply.device, reply.vector))
        except InvalidSignature:
            continue
        found[reply.device] = reply.vector
    return list(found.values())
