"""What a gateway can be told: the `[gateway]` part of `bedside.toml`."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from policies import Agreement, Candidate, PlacementKind
from secure_gateway.admission.settings import AdmissionSettings, LimitSettings
from secure_gateway.cache.settings import CacheSettings
from secure_gateway.consent.settings import ConsentSettings
from secure_gateway.notify.settings import NotifySettings
from secure_gateway.rpc.settings import GrpcSettings
from secure_gateway.work.settings import WorkSettings

Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
OperatorName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
NodeId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class NodeEntry(BaseModel):
    """One node that the gateway may route to.

    `url` is an Open Inference Protocol server (`http://host:port` or `unix:/path`); without it the
    node runs inside the gateway's own process. `operator` is who runs it, and `agreements` what that
    one signed with the site; `attested` says that the site verified the hardware and software it runs
    on, `adequacy` that the adequacy decision on its country covers it (GDPR Art. 45), where not
    everybody there is covered. `models` names what to look for on a server that cannot
    list what it serves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: NodeId
    jurisdiction: Jurisdiction
    url: str | None = None
    on_premises: bool = True
    operator: OperatorName = ""
    agreements: frozenset[Agreement] = frozenset()
    attested: bool = False
    adequacy: bool = False
    secret: str | None = Field(default=None, description="reference to the node's shared secret")
    models: tuple[ModelName, ...] = ()

    @property
    def candidate(self) -> Candidate:
        """The node as policies see it."""
        return Candidate(
            placement=f"node:{self.id}",
            kind=PlacementKind.NODE,
            jurisdiction=self.jurisdiction,
            on_premises=self.on_premises,
            operator=self.operator,
            agreements=self.agreements,
            attested=self.attested,
            adequacy=self.adequacy,
        )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme == "unix":
            if not parts.path.startswith("/") or parts.netloc:
                message = "a node's url over a Unix socket is unix:/absolute/path"
                raise ValueError(message)
        elif parts.scheme not in ("http", "https") or not parts.hostname:
            message = "a node's url is http://host:port, https://host:port or unix:/path"
            raise ValueError(message)
        if "@" in parts.netloc or parts.query or parts.fragment:
            message = "a node's url names a place only; its secret is given by reference, in `secret`"
            raise ValueError(message)
        return url


class GatewaySettings(BaseModel):
    """Settings of one gateway replica; sizes in bytes, times in seconds.

    Without `grpc_port` there is no gRPC; 0 takes a free one. Who reads less than 1 KiB/s of a waiting
    answer over `unread_timeout_s`, or has no room for the next response of a gRPC stream, is cut off,
    and its place is free again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    replica: NodeId = "gateway-1"
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    body_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    unread_timeout_s: float = Field(default=20.0, gt=0, le=3600)
    node_timeout_s: float = Field(default=30.0, gt=0)
    device_timeout_s: float = Field(default=10.0, gt=0)
    placement_lifetime_s: int = Field(default=300, ge=1, le=86400)
    registry_poll_s: float = Field(default=1.0, gt=0)
    policy_poll_s: float = Field(default=1.0, gt=0)
    nodes: tuple[NodeEntry, ...] = ()
    admission: AdmissionSettings = AdmissionSettings()
    limits: LimitSettings = LimitSettings()
    cache: CacheSettings = CacheSettings()
    grpc: GrpcSettings = GrpcSettings()
    work: WorkSettings = WorkSettings()
    consent: ConsentSettings = ConsentSettings()
    notify: NotifySettings = NotifySettings()


class GatewayPaths(BaseModel):
    """Where a gateway keeps its log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    log: Path
