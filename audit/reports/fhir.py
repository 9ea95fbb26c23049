"""Requests as FHIR R4 AuditEvents, after the patterns of IHE Basic Audit Log Patterns (BALP).

Disclosures declare BALP's profile for a disclosure at its source. Requests for inference follow its
Patient Query pattern (who, where, what for, about whom, as which transaction), and declare no profile:
the profile wants the caller's network address and the query itself, and a record holds neither.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from audit.records import Outcome, RequestRecord
from audit.reports.report import Entry, Report
from audit.reports.sent import went_to
from audit.reports.words import requests

Json = dict[str, Any]

BALP: Final = "https://profiles.ihe.net/ITI/BALP"
DISCLOSURE_PROFILE: Final = f"{BALP}/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source"
_EVENTS: Final = UUID("9b7a3a0e-1d0f-5a53-8d6a-6f0a0f6c2b11")

_DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_TERMS: Final = "http://terminology.hl7.org/CodeSystem"
_ENTITY: Final = f"{_TERMS}/audit-entity-type"
_ROLE: Final = f"{_TERMS}/object-role"
_PURPOSE: Final = f"{_TERMS}/v3-ActReason"
_REST: Final = "http://hl7.org/fhir/restful-interaction"
_URI: Final = "5"

# AuditEvent.outcome: success, minor failure, serious failure.
_OUTCOMES: Final = {
    Outcome.SERVED: "0",
    Outcome.REFUSED: "4",
    Outcome.FAILED: "8",
    Outcome.ABANDONED: "8",
}


def to_bundle(report: Report, events: Iterable[Json]) -> bytes:
    """Return a Bundle of AuditEvents (type `collection`) as JSON."""
    bundle: Json = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": _instant(report.created),
    }
    entries = [{"fullUrl": f"urn:uuid:{event['id']}", "resource": event} for event in events]
    if entries:
        bundle["entry"] = entries
    return msgspec.json.format(msgspec.json.encode(bundle))


def access_events(report: Report) -> list[Json]:
    """Return an AuditEvent for each request: an operation that was executed, or refused."""
    return [_access(report, entry, record) for entry, record in requests(report)]


def disclosure_events(report: Report) -> list[Json]:
    """Return an AuditEvent for each disclosure: an export, as its source saw it."""
    return [
        _disclosure(report, entry, record, placement, answered)
        for entry, record in requests(report)
        for placement, answered in went_to(record)
    ]


def _access(report: Report, entry: Entry, record: RequestRecord) -> Json:
    client = {
        "type": _concept(_DICOM, "110153", "Source Role ID"),
        "who": {"display": "the caller's application"},
        "requestor": False,
    }
    event = _event(report, entry, record, "access", [client, _server(entry, record)])
    return {
        **event,
        "type": _coding(f"{_TERMS}/audit-event-type", "rest", "RESTful Operation"),
        "subtype": [_coding(_REST, "operation", "operation")],
        "action": "E",
        "outcome": _OUTCOMES[record.outcome],
    }


def _disclosure(
    report: Report, entry: Entry, record: RequestRecord, placement: str, answered: bool
) -> Json:
    source = {
        "type": _concept(_DICOM, "110153", "Source Role ID"),
        "who": {"identifier": {"value": entry.origin}},
        "requestor": False,
        "network": {"address": f"urn:bedside:log:{entry.origin}", "type": _URI},
    }
    recipient = {
        "type": _concept(_DICOM, "110152", "Destination Role ID"),
        "who": {"identifier": {"value": placement}},
        "requestor": False,
        "network": {"address": f"urn:bedside:place:{placement}", "type": _URI},
    }
    event = _event(report, entry, record, placement, [source, recipient])
    return {
        **event,
        "meta": {"profile": [DISCLOSURE_PROFILE]},
        "type": _coding(_DICOM, "110106", "Export"),
        "subtype": [
            _coding(f"{_TERMS}/iso-21089-lifecycle", "disclose", "Disclose Record Lifecycle Event"),
            _coding(_REST, "operation", "operation"),
        ],
        "action": "R",
        "outcome": "0" if answered else "8",
    }


def _event(
    report: Report, entry: Entry, record: RequestRecord, what: str, systems: Sequence[Json]
) -> Json:
    """Return what both kinds of event have."""
    agents = [*systems, *_user(record)]
    purpose = [_concept(_PURPOSE, record.purpose)] if record.purpose else []
    event: Json = {
        "resourceType": "AuditEvent",
        "id": str(uuid5(_EVENTS, f"{entry.origin}#{entry.index}#{what}")),
        "recorded": _instant(record.time),
        "agent": agents,
        "source": {
            "site": report.site,
            "observer": {"identifier": {"value": entry.origin}},
            "type": [_coding(f"{_TERMS}/security-source-type", "4", "Application Server")],
        },
        "entity": _entities(report, entry, record),
    }
    if purpose:
        event["purposeOfEvent"] = purpose
    if record.problem:
        event["outcomeDesc"] = record.problem.value
    return event


def _server(entry: Entry, record: RequestRecord) -> Json:
    server: Json = {
        "type": _concept(_DICOM, "110152", "Destination Role ID"),
        "who": {"identifier": {"value": record.placement or entry.origin}},
        "requestor": False,
        "network": {"address": f"urn:bedside:log:{entry.origin}", "type": _URI},
    }
    if record.policies:
        server["policy"] = [f"urn:bedside:policy:{policy}" for policy in record.policies]
    return server


def _user(record: RequestRecord) -> list[Json]:
    if record.principal is None:
        return []
    user: Json = {
        "type": _concept(f"{_TERMS}/v3-ParticipationType", "IRCP", "information recipient"),
        "who": {"identifier": {"value": record.principal}},
        "requestor": True,
    }
    if record.roles:
        user["role"] = [{"text": role} for role in record.roles]
    if record.purpose:
        user["purposeOfUse"] = [_concept(_PURPOSE, record.purpose)]
    return [user]


def _entities(report: Report, entry: Entry, record: RequestRecord) -> list[Json]:
    transaction = _coding(f"{BALP}/CodeSystem/BasicAuditEntityType", "XrequestId")
    entities: list[Json] = [
        {"what": {"identifier": {"value": str(record.id)}}, "type": transaction},
        {
            # Where the record stands, so that its proof can be found in the report's JSON form.
            "what": {"identifier": {"system": "urn:bedside:record", "value": _where(entry)}},
            "type": _coding(_ENTITY, "2", "System Object"),
            "role": _coding(_ROLE, "13", "Security Resource"),
        },
    ]
    if record.model:
        model = f"{record.model} v{record.model_version or '?'}"
        entities.append(
            {
                "what": {"identifier": {"system": "urn:bedside:model", "value": model}},
                "type": _coding(_ENTITY, "2", "System Object"),
                "role": _coding(_ROLE, "4", "Domain Resource"),
            }
        )
    # A subject that was not named is still somebody: the profile wants a patient.
    known: Json = {"display": "subject not named"}
    if record.subject:
        system = f"urn:bedside:{report.site}:pseudonym"
        known = {"identifier": {"system": system, "value": record.subject}}
    entities.append(
        {
            "what": {"type": "Patient", **known},
            "type": _coding(_ENTITY, "1", "Person"),
            "role": _coding(_ROLE, "1", "Patient"),
        }
    )
    return entities


def _where(entry: Entry) -> str:
    return f"{entry.origin}#{entry.index}"


def _coding(system: str, code: str, display: str | None = None) -> Json:
    coding = {"system": system, "code": code}
    return {**coding, "display": display} if display else coding


def _concept(system: str, code: str, display: str | None = None) -> Json:
    return {"coding": [_coding(system, code, display)]}


def _instant(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
