"""What the console can be told: the `[console]` part of `bedside.toml`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ConsoleSettings(BaseModel):
    """Settings of the console; times in seconds.

    `url` is where officers reach it, where that is not the address it listens on (behind a proxy that
    ends TLS). With `certificate` and `key`, PEM files, it serves TLS itself. A session ends `idle_s`
    after the last thing its owner did, and `lifetime_s` after sign-in. So many wrong passwords within
    `lockout_s` lock an account, or an address, for as long.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8082, ge=0, le=65535)
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+$", max_length=255)
    certificate: Path | None = None
    key: Path | None = None
    idle_s: int = Field(default=900, ge=60)
    lifetime_s: int = Field(default=28800, ge=300)
    account_failures: int = Field(default=5, ge=1)
    address_failures: int = Field(default=20, ge=1)
    lockout_s: int = Field(default=900, ge=1)

    @model_validator(mode="after")
    def _both_or_neither(self) -> "ConsoleSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("TLS needs both `certificate` and `key`")
        return self
