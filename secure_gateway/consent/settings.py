"""What the consent registry can be told: the `[gateway.consent]` part of `bedside.toml`."""

from pydantic import BaseModel, ConfigDict, Field


class ConsentSettings(BaseModel):
    """Settings of consent; times in seconds.

    With `registry`, consents are recorded, and a request has its person's consent only where a grant is
    in force. `database` is where they are kept, `sqlite:///<path>` or `postgresql://user@host/name`;
    None keeps them in the site's data folder. `password` is a reference. Replicas that share the
    database share the consents. `claims` says whether a caller is believed who merely says that there
    is consent; None means only where there is no registry.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    registry: bool = False
    database: str | None = Field(default=None, max_length=1024)
    password: str | None = None
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    lifetime_max_days: int = Field(default=3653, ge=1, le=36525)
    claims: bool | None = None

    @property
    def believes_claims(self) -> bool:
        """Whether a caller's word counts as consent."""
        return not self.registry if self.claims is None else self.claims
