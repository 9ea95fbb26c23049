"""What the response cache can be told: the `[gateway.cache]` part of `bedside.toml`."""

from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

_SCHEMES: Final = ("redis", "rediss", "unix")


class CacheScope(StrEnum):
    """Who shares answers with whom."""

    PRINCIPAL = "principal"
    SITE = "site"


class CacheSettings(BaseModel):
    """Settings of the response cache; sizes in bytes, times in seconds.

    With `url` (`redis://host:port/db`, `rediss://...` or `unix:///path`) answers are kept in a Redis or
    Valkey server that several gateways share, otherwise in this process. `password` is a reference to
    the server's password, as `file:/path/to/it`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    scope: CacheScope = CacheScope.PRINCIPAL
    lifetime_s: float = Field(default=300.0, gt=0, le=86400)
    limit_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    entry_limit_bytes: int = Field(default=1024 * 1024, ge=1024)
    url: str | None = None
    password: str | None = Field(default=None, description="reference to the server's password")
    timeout_s: float = Field(default=0.05, gt=0, le=5)
    rest_s: float = Field(default=1.0, ge=0, le=60)

    @field_validator("url")
    @classmethod
    def _names_a_server(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            message = "the cache's url starts with redis://, rediss:// or unix://"
            raise ValueError(message)
        if parts.password is not None or "password=" in parts.query:
            message = "the cache's password is given by reference, in `password`, never in its url"
            raise ValueError(message)
        return url
