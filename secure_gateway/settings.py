"""What a gateway can be told: the `[gateway]` part of `bedside.toml`."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
NodeId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class NodeEntry(BaseModel):
    """One node that the gateway may route to.

    `url` is an Open Inference Protocol server (`http://host:port` or `unix:/path`); without it the
    node runs inside the gateway's own process. `agreement` says that its operator signed a business
    associate agreement (45 CFR 164.504(e)).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: NodeId
    jurisdiction: Jurisdiction
    url: str | None = None
    on_premises: bool = True
    agreement: bool = False
    secret: str | None = Field(default=None, description="reference to the node's shared secret")


class GatewaySettings(BaseModel):
    """Settings of one gateway replica; sizes in bytes, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replica: NodeId = "gateway-1"
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    body_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    node_timeout_s: float = Field(default=30.0, gt=0)
    device_timeout_s: float = Field(default=10.0, gt=0)
    placement_lifetime_s: int = Field(default=300, ge=1, le=86400)
    registry_poll_s: float = Field(default=1.0, gt=0)
    nodes: tuple[NodeEntry, ...] = ()


class GatewayPaths(BaseModel):
    """Where a gateway keeps its log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    log: Path
