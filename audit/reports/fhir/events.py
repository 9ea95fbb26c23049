"""Requests as AuditEvents: one for each request, or one for each disclosure.

A record holds neither its caller's network address nor what was sent. Where a profile wants the one,
FHIR's own extension says that it is not known; where it wants the query, there are the facts that the
request was decided on, which are all that a record has of it.
"""

import base64
from collections.abc import Iterable
from typing import Final
from uuid import UUID, uuid5

import msgspec

from audit.records import Outcome, RequestRecord
from audit.reports.fhir.coding import (
    BALP,
    DICOM,
    ENTITY,
    EVENT,
    PARTICIPATION,
    PURPOSE,
    REST,
    ROLE,
    TERMS,
    Json,
    coding,
    concept,
    identified,
    instant,
    unknown,
)
from audit.reports.fhir.patterns import (
    PATTERNS,
    QUERY,
    RECORD_SYSTEM,
    data_of,
    interactions_of,
    model_of,
    query_of,
    resource_type,
)
from audit.reports.report import Entry, Report
from audit.reports.sent import went_to
from audit.reports.words import requests

DISCLOSURE_PROFILE: Final = f"{BALP}/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source"
_EVENTS: Final = UUID("9b7a3a0e-1d0f-5a53-8d6a-6f0a0f6c2b11")
_URI: Final = "5"
_FACTS: Final = ("model", "model_version", "data_class", "jurisdiction", "purpose")
_PROBLEM: Final = "problem"

# AuditEvent.outcome: success, minor failure, serious failure.
_OUTCOMES: Final = {
    Outcome.SERVED: "0",
    Outcome.REFUSED: "4",
    Outcome.FAILED: "8",
    Outcome.ABANDONED: "8",
}

# OperationOutcome.issue.code for a status; of others, what its class is.
_ISSUES: Final = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    408: "timeout",
    413: "too-long",
    429: "throttled",
    499: "incomplete",
    504: "timeout",
}
_SERVER_ERRORS: Final = 500


def to_bundle(report: Report, events: Iterable[Json]) -> bytes:
    """Return a Bundle of AuditEvents (type `collection`) as JSON."""
    bundle: Json = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": instant(report.created),
    }
    entries = [{"fullUrl": f"urn:uuid:{event['id']}", "resource": event} for event in events]
    if entries:
        bundle["entry"] = entries
    return msgspec.json.format(msgspec.json.encode(bundle))


def access_events(report: Report) -> list[Json]:
    """Return an AuditEvent for each request, after the pattern of what was asked.

    What was served declares the pattern's profile, what was not follows it and says why.
    """
    return [_access(report, entry, record) for entry, record in requests(report)]


def disclosure_events(report: Report) -> list[Json]:
    """Return an AuditEvent for each disclosure: an export, as its source saw it."""
    return [
        _disclosure(report, entry, record, placement, answered)
        for entry, record in requests(report)
        for placement, answered in went_to(record)
    ]


def _access(report: Report, entry: Entry, record: RequestRecord) -> Json:
    pattern = PATTERNS[record.action]
    client = {
        "type": pattern.client,
        "who": {"display": "the caller's application"},
        "requestor": False,
        "network": unknown(),
    }
    server: Json = {
        "type": pattern.server,
        "who": identified(record.placement or entry.origin),
        "requestor": False,
        "network": _at_log(entry),
    }
    if record.policies:
        server["policy"] = [f"urn:bedside:policy:{policy}" for policy in record.policies]
    asked = query_of(_facts(record)) if pattern is QUERY else data_of(record)
    served = record.outcome is Outcome.SERVED
    patient = [_patient(report, record)] if record.subject else []
    profile = pattern.profile(patient=bool(patient))
    return {
        **_event(report, entry, record, "access"),
        **({"meta": {"profile": [profile]}} if served else {}),
        **({} if served else {"contained": [_why(record)]}),
        "type": coding(EVENT, "rest", "RESTful Operation"),
        "subtype": interactions_of(record),
        "action": pattern.action,
        "outcome": _OUTCOMES[record.outcome],
        "agent": [client, server, *_user(record, pattern.user)],
        "entity": [asked, *patient, *_entities(entry, record), *([] if served else [_OUTCOME_ENTITY])],
    }


def _disclosure(
    report: Report, entry: Entry, record: RequestRecord, placement: str, answered: bool
) -> Json:
    source = {
        "type": concept(DICOM, "110153", "Source Role ID"),
        "who": identified(entry.origin),
        "requestor": False,
        "network": _at_log(entry),
    }
    recipient = {
        "type": concept(DICOM, "110152", "Destination Role ID"),
        "who": identified(placement),
        "requestor": False,
        "network": {"address": f"urn:bedside:place:{placement}", "type": _URI},
    }
    user = _user(record, concept(PARTICIPATION, "IRCP", "information recipient"))
    return {
        **_event(report, entry, record, placement),
        "meta": {"profile": [DISCLOSURE_PROFILE]},
        "type": coding(DICOM, "110106", "Export"),
        "subtype": [
            coding(f"{TERMS}/iso-21089-lifecycle", "disclose", "Disclose Record Lifecycle Event"),
            coding(REST, "operation", "operation"),
        ],
        "action": "R",
        "outcome": "0" if answered else "8",
        "agent": [source, recipient, *user],
        # A subject that was not named is still somebody: the profile wants a patient.
        "entity": [_patient(report, record), *_entities(entry, record)],
    }


def _event(report: Report, entry: Entry, record: RequestRecord, what: str) -> Json:
    """Return what both kinds of event have."""
    event: Json = {
        "resourceType": "AuditEvent",
        "id": str(uuid5(_EVENTS, f"{entry.origin}#{entry.index}#{what}")),
        "recorded": instant(record.time),
        "source": {
            "site": report.site,
            "observer": identified(entry.origin),
            "type": [coding(f"{TERMS}/security-source-type", "4", "Application Server")],
        },
    }
    if record.purpose:
        event["purposeOfEvent"] = [concept(PURPOSE, record.purpose)]
    if record.problem:
        event["outcomeDesc"] = record.problem.value
    return event


def _at_log(entry: Entry) -> Json:
    return {"address": f"urn:bedside:log:{entry.origin}", "type": _URI}


def _user(record: RequestRecord, type_: Json) -> list[Json]:
    if record.principal is None:
        return []
    user: Json = {"type": type_, "who": identified(record.principal), "requestor": True}
    if record.roles:
        user["role"] = [{"text": role} for role in record.roles]
    if record.purpose:
        user["purposeOfUse"] = [concept(PURPOSE, record.purpose)]
    return [user]


def _patient(report: Report, record: RequestRecord) -> Json:
    """Return the subject, by pseudonym: who that is, the site's key alone can tell."""
    known: Json = {"display": "subject not named"}
    if record.subject:
        known = identified(record.subject, f"urn:bedside:{report.site}:pseudonym")
    return {
        "what": {"type": "Patient", **known},
        "type": coding(ENTITY, "1", "Person"),
        "role": coding(ROLE, "1", "Patient"),
    }


def _entities(entry: Entry, record: RequestRecord) -> list[Json]:
    """Return the transaction, where its record stands, and the model that was asked for."""
    entities: list[Json] = [
        {
            "what": identified(str(record.id)),
            "type": coding(f"{BALP}/CodeSystem/BasicAuditEntityType", "XrequestId"),
        },
        {
            # So that its proof can be found in the report's JSON form.
            "what": identified(f"{entry.origin}#{entry.index}", RECORD_SYSTEM),
            "type": resource_type("AuditEvent"),
            "role": coding(ROLE, "13", "Security Resource"),
        },
    ]
    if record.model:
        entities.append(
            {
                "what": model_of(record),
                "type": resource_type("Device"),
                "role": coding(ROLE, "4", "Domain Resource"),
            }
        )
    return entities


_OUTCOME_ENTITY: Final[Json] = {
    "what": {"reference": f"#{_PROBLEM}"},
    "type": resource_type("OperationOutcome"),
}


def _why(record: RequestRecord) -> Json:
    """Return why a request was not served, as BALP asks of a failure."""
    otherwise = "exception" if record.status >= _SERVER_ERRORS else "processing"
    issue: Json = {"severity": "error", "code": _ISSUES.get(record.status, otherwise)}
    if record.problem:
        issue["details"] = {"text": record.problem.value}
    return {"resourceType": "OperationOutcome", "id": _PROBLEM, "issue": [issue]}


def _facts(record: RequestRecord) -> str:
    """Return what a request said of itself, as JSON in base64: never what it carried."""
    facts: Json = {"action": record.action.value}
    facts |= {name: value for name in _FACTS if (value := getattr(record, name)) is not None}
    facts |= {"consent": record.consent, "emergency": record.emergency}
    return base64.b64encode(msgspec.json.encode(facts, order="deterministic")).decode()
