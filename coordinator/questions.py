"""What callers may send, and no more."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from coordinator.jobs import EVALUATE

Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class CodeQuestion(BaseModel):
    """Whose data the device will hold; the identifiers become pseudonyms at once."""

    model_config = ConfigDict(extra="forbid")

    jurisdiction: Jurisdiction
    subjects: Annotated[list[Text], Field(max_length=100_000)] = []


class EnrolmentQuestion(BaseModel):
    """A device's code, key and proof that it holds the key."""

    model_config = ConfigDict(extra="forbid")

    code: Text
    public_key: PublicKey
    proof: Signature


class JobQuestion(BaseModel):
    """A federated job; the newest release and the site's minimum cohort where none is named."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, StringConstraints(pattern=f"^{EVALUATE}$")] = EVALUATE
    model: Text
    version: Text | None = None
    cohort_minimum: Annotated[int, Field(ge=2, le=1_000_000)] | None = None


MEMBERS = frozenset(
    name for model in (CodeQuestion, EnrolmentQuestion, JobQuestion) for name in model.model_fields
)
