"""The messages of the device channel, as tagged structs; one JSON text frame each."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,18}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]

ErrorCode = Literal["subject-unknown", "model-unknown", "refused", "failed", "busy"]


class Frame(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Root of all frames; `type` tells them apart."""


class DeviceModel(Struct, frozen=True, kw_only=True):
    """A model that a device holds, with the SHA-256 of its file."""

    name: Name
    version: Version
    digest: Digest


class Ready(Frame, frozen=True, tag="ready"):
    """First frame of a device: what it can run.

    Only informative: what the site serves is what its nodes and releases say, so that a device
    cannot make the gateway believe in a model.
    """

    models: Annotated[tuple[DeviceModel, ...], Meta(max_length=1024)] = ()


class Welcome(Frame, frozen=True, tag="welcome"):
    """First frame of the gateway."""

    heartbeat_s: float


class Infer(Frame, frozen=True, tag="infer"):
    """Run a model on the subject's own row; the device looks up the named inputs itself."""

    id: int
    request_id: UUID
    model: str
    version: str | None
    subject: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    deadline_ms: int


class Cancel(Frame, frozen=True, tag="cancel"):
    """Nobody waits for this request any more."""

    id: int


class Output(Struct, frozen=True, kw_only=True):
    """One output tensor: flat `data` in row-major order."""

    name: Name
    datatype: Name
    shape: tuple[int, ...]
    data: list[Any]


class Result(Frame, frozen=True, tag="result"):
    """What the model answered, and exactly which model it was."""

    id: int
    version: Version
    digest: Digest
    outputs: tuple[Output, ...]


class Failure(Frame, frozen=True, tag="error"):
    """The device did not answer; the code is all it says, so no content can slip out."""

    id: int
    code: ErrorCode


FromDevice = Ready | Result | Failure

encode = msgspec.json.Encoder().encode
decode_from_device = msgspec.json.Decoder(FromDevice).decode
