"""Which of BALP's RESTful patterns a request follows, and what its data is.

Each pattern has two profiles, one for events about a known patient. They are for what succeeded: "a
failure AuditEvent may follow this pattern", says BALP, and then declares no profile. A client is the
source in all but a read, where the data flows to it, and a deletion.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from audit.records import Action, RequestRecord
from audit.reports.fhir.coding import (
    BALP,
    DICOM,
    ENTITY,
    PARTICIPATION,
    RESOURCE,
    REST,
    ROLE,
    TERMS,
    Json,
    coding,
    concept,
    identified,
)

_SOURCE: Final = concept(DICOM, "110153", "Source Role ID")
_DESTINATION: Final = concept(DICOM, "110152", "Destination Role ID")
_APPLICATION: Final = concept(DICOM, "110150", "Application")
_CUSTODIAN: Final = concept(f"{TERMS}/provenance-participant-type", "custodian", "Custodian")
_RECIPIENT: Final = concept(PARTICIPATION, "IRCP", "information recipient")
_AUTHOR: Final = concept(PARTICIPATION, "AUT", "author (originator)")

_DOMAIN_RESOURCE: Final = coding(ROLE, "4", "Domain Resource")
_REPORT: Final = coding(ROLE, "3", "Report")
_JOB: Final = coding(ROLE, "20", "Job")
_QUERY: Final = coding(ROLE, "24", "Query")

RECORD_SYSTEM: Final = "urn:bedside:record"
MODEL_SYSTEM: Final = "urn:bedside:model"
WORK_SYSTEM: Final = "urn:bedside:work"
CONSENT_SYSTEM: Final = "urn:bedside:consent"


class Pattern(Struct, frozen=True, kw_only=True):
    """One of BALP's patterns: AuditEvent.action, the interaction, and who is what in it."""

    name: str
    action: str
    interaction: str
    client: Json
    server: Json
    user: Json

    def profile(self, *, patient: bool) -> str:
        """Return the profile's canonical URL."""
        return f"{BALP}/StructureDefinition/IHE.BasicAudit.{'Patient' if patient else ''}{self.name}"


QUERY: Final = Pattern(
    name="Query",
    action="E",
    interaction="search",
    client=_SOURCE,
    server=_DESTINATION,
    user=_RECIPIENT,
)
READ: Final = Pattern(
    name="Read",
    action="R",
    interaction="read",
    client=_DESTINATION,
    server=_SOURCE,
    user=_RECIPIENT,
)
CREATE: Final = Pattern(
    name="Create",
    action="C",
    interaction="create",
    client=_SOURCE,
    server=_DESTINATION,
    user=_AUTHOR,
)
UPDATE: Final = Pattern(
    name="Update",
    action="U",
    interaction="update",
    client=_SOURCE,
    server=_DESTINATION,
    user=_AUTHOR,
)
DELETE: Final = Pattern(
    name="Delete",
    action="D",
    interaction="delete",
    client=_APPLICATION,
    server=_CUSTODIAN,
    user=_AUTHOR,
)

PATTERNS: Final[Mapping[Action, Pattern]] = {
    # BALP has no pattern for operations. A model is asked about a person and keeps nothing: a query.
    Action.INFER: QUERY,
    Action.STREAM: QUERY,
    Action.PLACE: QUERY,
    Action.MODELS: READ,
    Action.INDEX: READ,
    Action.STATISTICS: READ,
    Action.METRICS: READ,
    Action.FETCH: READ,
    Action.CONSENT_READ: READ,
    Action.RECEIPT: CREATE,
    Action.SUBMIT: CREATE,
    Action.CONSENT_GRANT: CREATE,
    Action.CONNECT: CREATE,
    Action.LOAD: UPDATE,
    Action.UNLOAD: UPDATE,
    Action.REVIEW: UPDATE,
    Action.CONSENT_WITHDRAW: UPDATE,
    Action.CANCEL: DELETE,
}

# Beside `search`, which the profile asks for, what FHIR itself would call it.
OPERATIONS: Final = frozenset({Action.INFER, Action.STREAM})

_CONSENTS: Final = frozenset({Action.CONSENT_GRANT, Action.CONSENT_READ, Action.CONSENT_WITHDRAW})
_WORK: Final = frozenset({Action.SUBMIT, Action.FETCH, Action.CANCEL, Action.REVIEW})
_MODELS: Final = frozenset({Action.LOAD, Action.UNLOAD})


def data_of(record: RequestRecord) -> Json:
    """Return what a request created, read, updated or deleted: the slice `data` of its pattern."""
    role = _DOMAIN_RESOURCE
    if record.action in _CONSENTS:
        grants = record.scope.grants if record.scope is not None else ()
        named = identified(str(grants[0]), CONSENT_SYSTEM) if grants else {"display": "their consents"}
        what = {"type": "Consent", **named}
    elif record.action in _WORK:
        what, role = identified(str(record.id), WORK_SYSTEM), _JOB
    elif record.action in _MODELS:
        what = model_of(record)
    elif record.action is Action.RECEIPT:
        what, role = identified(str(record.id), "urn:bedside:receipt"), _REPORT
    else:
        what, role = identified(record.action.value, "urn:bedside:resource"), _REPORT
    return {"what": what, "type": coding(ENTITY, "2", "System Object"), "role": role}


def query_of(asked: str) -> Json:
    """Return the slice `query` of a request whose facts are `asked` (base64)."""
    return {"type": coding(ENTITY, "2", "System Object"), "role": _QUERY, "query": asked}


def model_of(record: RequestRecord) -> Json:
    """Return the model that a request was about, as a device: software counts as one in FHIR."""
    version = record.model_version or "?"
    return {"type": "Device", **identified(f"{record.model} v{version}", MODEL_SYSTEM)}


def interactions_of(record: RequestRecord) -> list[Json]:
    """Return AuditEvent.subtype."""
    codes = [PATTERNS[record.action].interaction]
    codes += ["operation"] if record.action in OPERATIONS else []
    return [coding(REST, code, code) for code in codes]


def resource_type(name: str) -> Json:
    """Return an entity's type that names a resource."""
    return coding(RESOURCE, name, name)
