"""What callers may send, and no more."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from audit.records import Outcome
from coordinator.jobs import EVALUATE
from policies import Agreement, CallerKind, DataClass, Purpose, Role, RollbackReason

Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Belongs = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")]
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


class DraftQuestion(BaseModel):
    """A policy bundle as a DSSE envelope, signed or not."""

    model_config = ConfigDict(extra="forbid")

    document: dict[str, Any]


class SignatureQuestion(BaseModel):
    """An approver's signature on a draft, as it stands in an envelope."""

    model_config = ConfigDict(extra="forbid")

    keyid: Text
    sig: Text


class RollbackQuestion(BaseModel):
    """Which published version to bring back, and why."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, le=2**31)]
    reason: RollbackReason


class ShadowQuestion(BaseModel):
    """Which draft is to decide in the shadow."""

    model_config = ConfigDict(extra="forbid")

    digest: Digest


class PeriodQuestion(BaseModel):
    """Which records to decide again; all where nothing is said."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class PlaceQuestion(BaseModel):
    """A place that could run a made-up request."""

    model_config = ConfigDict(extra="forbid")

    placement: Annotated[str, StringConstraints(pattern=r"^(node|device):[a-z0-9][a-z0-9-]{0,62}$")]
    jurisdiction: Jurisdiction
    on_premises: bool = True
    operator: Belongs = ""
    agreements: frozenset[Agreement] = frozenset()
    attested: bool = False
    adequacy: bool = False
    holds_subject: bool = False


class ExplainQuestion(BaseModel):
    """A made-up request, to be decided and explained."""

    model_config = ConfigDict(extra="forbid")

    roles: Annotated[list[Role], Field(max_length=len(Role))]
    kind: CallerKind = CallerKind.USER
    site: Belongs = ""
    organisation: Belongs = ""
    model: Text
    jurisdiction: Jurisdiction
    data_class: DataClass = DataClass.PHI
    purpose: Purpose = Purpose.TREAT
    consent: bool = False
    emergency: bool = False
    on_device: bool = False
    own_device: bool = False
    carries_payload: bool = True
    candidates: Annotated[list[PlaceQuestion], Field(max_length=256)]


class ReportQuestion(BaseModel):
    """Which report, of what: `subject` is an identifier, and becomes a pseudonym at once."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}$")]
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    subject: Text | None = None
    principal: Identifier | None = None
    outcome: Outcome | None = None
    hours: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}-[0-9]{1,2}$")] = "7-19"
    timezone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+/-]{1,64}$")] = "UTC"


MEMBERS = frozenset(
    name
    for model in (
        CodeQuestion,
        EnrolmentQuestion,
        JobQuestion,
        DraftQuestion,
        SignatureQuestion,
        RollbackQuestion,
        ShadowQuestion,
        PeriodQuestion,
        PlaceQuestion,
        ExplainQuestion,
        ReportQuestion,
    )
    for name in model.model_fields
)
