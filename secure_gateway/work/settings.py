"""What asynchronous work can be told: the `[gateway.work]` part of `bedside.toml`."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class WorkSettings(BaseModel):
    """Settings of asynchronous work; sizes in bytes, times in seconds.

    `limit` and `limit_bytes` bound what is kept at once, inputs and results together;
    `limit_for_principal` bounds what one caller has in it. `remember_s` is how long work that has ended
    still answers with 410 before it is forgotten.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    concurrency: int = Field(default=2, ge=1, le=256)
    lifetime_s: int = Field(default=3600, ge=1)
    lifetime_max_s: int = Field(default=86400, ge=1, le=30 * 86400)
    limit: int = Field(default=1000, ge=1)
    limit_for_principal: int = Field(default=100, ge=1)
    limit_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024)
    attempts_max: int = Field(default=3, ge=1, le=100)
    remember_s: int = Field(default=3600, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "WorkSettings":
        if self.lifetime_s > self.lifetime_max_s:
            message = "lifetime_s is at most lifetime_max_s"
            raise ValueError(message)
        return self
