"""What a node can be told: the `[node]` part of `bedside.toml`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Device(StrEnum):
    """Where models run: `auto` takes a GPU if one works; `cuda` and `tensorrt` insist on it."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class NodeSettings(BaseModel):
    """Settings of one node; sizes in bytes, times in seconds.

    `release_keys` are Ed25519 public keys (raw, hexadecimal). Where there are any, a model is loaded
    only with a release document that one of them signed. A model's `config.pbtxt` outranks the batching
    named here. With `strict_readiness` the node is ready only while no model version is broken. Told to
    stop, it says for `drain_s` that it is not ready and serves on, so that probes send work elsewhere.
    Who reads less than 1 KiB/s of a waiting answer over `unread_timeout_s` is cut off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Path = Path("models")
    device: Device = Device.AUTO
    intra_op_threads: int = Field(default=1, ge=1, le=256)
    max_batch_size: int = Field(default=64, ge=1, le=65536)
    max_queue_size: int = Field(default=1024, ge=1, le=1_000_000)
    body_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    unread_timeout_s: float = Field(default=20.0, gt=0, le=3600)
    max_queue_delay_us: int = Field(default=0, ge=0, le=10_000_000)
    priority_levels: int = Field(default=0, ge=0, le=1000)
    strict_readiness: bool = True
    drain_s: float = Field(default=0.0, ge=0, le=600)
    release_keys: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")], ...] = ()
