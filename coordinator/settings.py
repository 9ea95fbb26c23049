"""What a coordinator can be told: the `[coordinator]` part of `bedside.toml`."""

from pydantic import BaseModel, ConfigDict, Field


class CoordinatorSettings(BaseModel):
    """Settings of the coordinator; times in seconds.

    `url` is where gateways and devices reach it, `gateway_url` what enrolled devices are told.
    `cohort_minimum` is k: no federated result is made from fewer devices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8081, ge=0, le=65535)
    url: str | None = None
    gateway_url: str = "http://127.0.0.1:8080"
    superlink_port: int = Field(default=0, ge=0, le=65535)
    cohort_minimum: int = Field(default=10, ge=2)
    code_lifetime_s: int = Field(default=86400, ge=60)
    job_timeout_s: float = Field(default=120.0, gt=0)
