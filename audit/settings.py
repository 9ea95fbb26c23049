"""What the audit component can be told: `[audit]` and `[witness]` of `bedside.toml`."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class WitnessMember(BaseModel):
    """A witness: where it is, and the key that `bedside witness key` printed there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://[^\s/]+(/[^\s]*[^\s/])?$", max_length=1024)
    key: str = Field(max_length=1024)


class WitnessesSettings(BaseModel):
    """Who must see the checkpoints of every log: `quorum` of the `members`.

    A gateway's is published once they did; other logs' at once, and what they saw stands beside.
    They are asked every `interval_s` seconds while there is something to cosign. A gateway whose
    witnesses are silent serves on, and publishes nothing; with `refuse_after_s` it serves for so long.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    quorum: int = Field(default=1, ge=1)
    interval_s: float = Field(default=1.0, gt=0)
    refuse_after_s: float | None = Field(default=None, gt=0)
    members: tuple[WitnessMember, ...] = ()

    @model_validator(mode="after")
    def _reachable(self) -> "WitnessesSettings":
        if self.members and self.quorum > len(self.members):
            raise ValueError("the quorum is larger than the number of witnesses")
        return self


class RetentionSettings(BaseModel):
    """How long records are kept at least; policies can ask for longer, and legal holds for good.

    Six years are what 45 CFR 164.316(b)(2)(i) asks for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: int = Field(default=2192, ge=1, le=36525)


class AuditSettings(BaseModel):
    """`index` is where the search index is: `sqlite:///<path>` or `postgresql://user@host/name`.

    None puts it into the site's data folder. `index_password` is a reference, such as `file:/path`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str | None = Field(default=None, max_length=1024)
    index_password: str | None = None
    witnesses: WitnessesSettings = WitnessesSettings()
    retention: RetentionSettings = RetentionSettings()


class WitnessSettings(BaseModel):
    """A witness of others' logs, which it knows by their public keys (`bedside audit keys` there)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    host: str = "127.0.0.1"
    port: int = Field(default=8092, ge=0, le=65535)
    logs: tuple[str, ...] = ()
