"""What gRPC can be told: `[gateway.grpc]`."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Compression(StrEnum):
    """How answers are compressed for clients that understand it."""

    NONE = "none"
    DEFLATE = "deflate"
    GZIP = "gzip"


class GrpcSettings(BaseModel):
    """Limits of the gRPC side; times in seconds. A message is at most as large as a body over REST.

    A connection that stays silent for `keepalive_time_s` is pinged, and closed when nothing comes back
    within `keepalive_timeout_s`. A client that pings more often than every `least_ping_interval_s` is
    told to calm down and disconnected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrent_streams: int = Field(default=256, ge=1, le=65536)
    keepalive_time_s: float = Field(default=120.0, ge=1)
    keepalive_timeout_s: float = Field(default=20.0, ge=1)
    least_ping_interval_s: float = Field(default=10.0, ge=0)
    compression: Compression = Compression.NONE
