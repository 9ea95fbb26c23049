"""The code systems that audit events draw on, and FHIR's small data types."""

from datetime import UTC, datetime
from typing import Any, Final

Json = dict[str, Any]

BALP: Final = "https://profiles.ihe.net/ITI/BALP"
DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
TERMS: Final = "http://terminology.hl7.org/CodeSystem"
EVENT: Final = f"{TERMS}/audit-event-type"
ENTITY: Final = f"{TERMS}/audit-entity-type"
ROLE: Final = f"{TERMS}/object-role"
PARTICIPATION: Final = f"{TERMS}/v3-ParticipationType"
PURPOSE: Final = f"{TERMS}/v3-ActReason"
REST: Final = "http://hl7.org/fhir/restful-interaction"
RESOURCE: Final = "http://hl7.org/fhir/resource-types"

_ABSENT: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def coding(system: str, code: str, display: str | None = None) -> Json:
    """Return a Coding."""
    return {"system": system, "code": code} | ({"display": display} if display else {})


def concept(system: str, code: str, display: str | None = None) -> Json:
    """Return a CodeableConcept of one coding."""
    return {"coding": [coding(system, code, display)]}


def identified(value: str, system: str | None = None) -> Json:
    """Return a logical Reference: to what an identifier names, which is on no FHIR server."""
    return {"identifier": ({"system": system} if system else {}) | {"value": value}}


def unknown() -> Json:
    """Return an element that a profile requires and a record does not hold."""
    return {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}


def instant(time: datetime) -> str:
    """Return a FHIR instant in UTC, to the millisecond."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
