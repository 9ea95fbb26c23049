"""What admission can be told: `[gateway.admission]` and `[gateway.limits]`."""

from pydantic import BaseModel, ConfigDict, Field

from policies import Role


class AdmissionSettings(BaseModel):
    """How long a request may have to wait before newcomers are sent away, and within which bounds.

    As many requests may be under way for one model as it lately completed within `target_wait_s`,
    but never fewer than `least` and never more than `most`. In a crowd a connection may be left unread
    for as long, a second at most, before its request counts as under way. Past `refusals_per_s`,
    connections of those who ask again although they were just sent away are left unread until they are
    called, for a second at the most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_wait_s: float = Field(default=1.0, gt=0, le=60)
    least: int = Field(default=64, ge=1)
    most: int = Field(default=4096, ge=1)
    refusals_per_s: int = Field(default=1000, ge=1)


class CallerAllowance(BaseModel):
    """What one caller may ask for; what is left out is unlimited.

    `requests_per_s` is refilled evenly, and up to `burst` requests may come at once (default: a
    second's worth). `requests_per_day` counts from midnight UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_s: float | None = Field(default=None, gt=0)
    burst: int | None = Field(default=None, ge=1)
    requests_per_day: int | None = Field(default=None, ge=1)


class LimitSettings(CallerAllowance):
    """The allowance of every caller, and others for some roles; of several roles the largest counts.

    `break_glass_per_hour` is how many emergencies one caller may declare in any hour.
    """

    break_glass_per_hour: int | None = Field(default=60, ge=1)
    roles: dict[Role, CallerAllowance] = Field(default={})
