"""What exporting to a SIEM can be told: `[export.syslog]` and `[export.otlp]` of `bedside.toml`."""

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/@?#]+(/[^\s?#@]*)?$", max_length=1024)]
Hostname = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]

SYSLOG: Final = "syslog"
OTLP: Final = "otlp"

# RFC 5612: the number for documentation. A site with one of its own (IANA, free of charge) sets that.
DOCUMENTATION_ENTERPRISE: Final = 32473


class DestinationSettings(BaseModel):
    """What both destinations share; times in seconds.

    With `history`, what was recorded before the first start is exported too. A batch is at most 256
    records; `interval_s` is how often is looked for more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    history: bool = True
    interval_s: float = Field(default=1.0, gt=0, le=3600)
    timeout_s: float = Field(default=10.0, gt=0, le=300)
    retry_s: float = Field(default=1.0, gt=0, le=3600)
    retry_max_s: float = Field(default=60.0, gt=0, le=86400)


class SyslogSettings(DestinationSettings):
    """A syslog receiver: `tcp://host:port` (RFC 6587) or `tls://host:port` (RFC 5425).

    `ca` verifies the receiver, in place of the machine's own authorities; `certificate` and `key` (PEM)
    are what this machine shows it. `enterprise` is the private enterprise number of structured data.
    """

    address: str | None = Field(default=None, max_length=1024)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    hostname: Hostname | None = None
    enterprise: int = Field(default=DOCUMENTATION_ENTERPRISE, ge=1, le=2**32 - 1)

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        message = "a syslog address is tcp://host:port or tls://host:port"
        try:
            parts = urlsplit(address)
            complete = bool(parts.hostname and parts.port)
        except ValueError:
            complete = False
        if not complete or parts.scheme not in ("tcp", "tls"):
            raise ValueError(message)
        if "@" in parts.netloc or parts.path or parts.query or parts.fragment:
            raise ValueError(message)
        return address

    @model_validator(mode="after")
    def _fits_together(self) -> "SyslogSettings":
        if (self.certificate is None) != (self.key is None):
            message = "a certificate and its key are given together"
            raise ValueError(message)
        if (self.ca or self.certificate) and not (self.address or "").startswith("tls://"):
            message = "ca, certificate and key are of an address that begins with tls://"
            raise ValueError(message)
        return self


class OtlpSettings(DestinationSettings):
    """An OTLP receiver's address for logs, `http(s)://host:port/v1/logs`.

    `token` is a reference to a bearer token that it wants; `ca` verifies it, as above.
    """

    url: Url | None = None
    token: str | None = None
    ca: Path | None = None


class ExportSettings(BaseModel):
    """Where records are exported to; a destination without an address is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    syslog: SyslogSettings = SyslogSettings()
    otlp: OtlpSettings = OtlpSettings()

    @property
    def names(self) -> list[str]:
        """The destinations that there are."""
        named = ((SYSLOG, self.syslog.address), (OTLP, self.otlp.url))
        return [name for name, address in named if address is not None]
