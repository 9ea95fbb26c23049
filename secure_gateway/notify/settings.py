"""What notification can be told: the `[gateway.notify]` part of `bedside.toml`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/@?#]+(/[^\s#@]*)?$", max_length=1024)]


class NotifySettings(BaseModel):
    """Whom to tell, by a webhook; times in seconds.

    `secret` is a reference to what the messages are signed with. Without a `webhook`, nobody is told
    and the obligation `notify` cannot be met.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    webhook: Url | None = None
    secret: str | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=300)
    retry_s: float = Field(default=1.0, gt=0, le=3600)
    retry_max_s: float = Field(default=60.0, gt=0, le=86400)

    @model_validator(mode="after")
    def _signed(self) -> "NotifySettings":
        if (self.webhook is None) != (self.secret is None):
            message = "a webhook and its secret are given together: messages are signed"
            raise ValueError(message)
        return self
