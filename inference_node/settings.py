"""What a node can be told: the `[node]` part of `bedside.toml`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Device(StrEnum):
    """Where models run: `auto` takes a GPU if one works; `cuda` insists on it."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class NodeSettings(BaseModel):
    """Settings of one node; sizes in bytes, times in seconds.

    `release_keys` are Ed25519 public keys (raw, hexadecimal). Where there are any, a model is loaded
    only with a release document that one of them signed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Path = Path("models")
    device: Device = Device.AUTO
    intra_op_threads: int = Field(default=1, ge=1, le=256)
    max_batch_size: int = Field(default=64, ge=1, le=65536)
    max_queue_size: int = Field(default=1024, ge=1, le=1_000_000)
    body_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    release_keys: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")], ...] = ()
