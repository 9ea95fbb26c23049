"""Audit events hold to FHIR R4 and to each profile of IHE BALP that they declare.

Seen to fail: with the client and the server of a read exchanged, with the profile declared for what was
refused, and with the type of the model's entity that of the data.
"""

import asyncio
import base64
import copy
import itertools
import json
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fhir.resources.R4B.auditevent import AuditEvent
from fhir.resources.R4B.bundle import Bundle
from support import hospital
from support.balp import PROFILES, declared, faults
from support.packed import made

from audit import Log, NoteVerifier
from audit.records import Action, ConsentScope, Outcome, Problem, encode
from audit.reports import KINDS, Filters, build_report, make_package
from audit.source import LogSource

CONSENTS = (Action.CONSENT_GRANT, Action.CONSENT_WITHDRAW)
ASKED = [action for action in Action if action is not Action.STREAM_END]
CALLS = list(itertools.product(ASKED, ("ab" * 32, None), Outcome))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return made(tmp_path_factory.mktemp("hospital"))


def events_of(report):
    document = json.loads(make_package(report).files["audit-events.json"])
    Bundle.model_validate(document)
    return [entry["resource"] for entry in document["entry"]]


@pytest.fixture
def calls(tmp_path, request_record):
    """One event for each thing that a caller can ask, about somebody or not, for each outcome."""
    key = Ed25519PrivateKey.generate()
    status = {Outcome.SERVED: 200, Outcome.REFUSED: 403, Outcome.FAILED: 500, Outcome.ABANDONED: 499}

    async def write():
        log = await Log.open(tmp_path / "log", origin="clinic/gateway-1", key=key)
        for number, (action, subject, outcome) in enumerate(CALLS):
            record = msgspec.structs.replace(
                request_record,
                id=UUID(int=number),
                action=action,
                subject=subject,
                outcome=outcome,
                status=status[outcome],
                problem=None if outcome is Outcome.SERVED else Problem.INTERNAL,
                scope=ConsentScope(grants=(UUID(int=9),)) if action in CONSENTS else None,
            )
            await log.append(encode(record))
        await log.close()

    asyncio.run(write())
    source = LogSource(
        folder=tmp_path / "log", verifier=NoteVerifier("clinic/gateway-1", key.public_key())
    )
    events = events_of(build_report(KINDS["access"], "clinic", [source], Filters()))
    return dict(zip(CALLS, events, strict=True))


def check(event):
    AuditEvent.model_validate(event)
    for profile in declared(event):
        assert faults(event, profile) == []


def test_every_call_follows_the_profile_that_it_declares(calls):
    for event in calls.values():
        check(event)
    names = {name for event in calls.values() for name in declared(event)}
    assert names == PROFILES.keys() - {"IHE.BasicAudit.PrivacyDisclosure.Source"}


@pytest.mark.parametrize(
    ("action", "profile"),
    [
        (Action.INFER, "Query"),
        (Action.STREAM, "Query"),
        (Action.PLACE, "Query"),
        (Action.FETCH, "Read"),
        (Action.SUBMIT, "Create"),
        (Action.RECEIPT, "Create"),
        (Action.CANCEL, "Delete"),
        (Action.CONSENT_GRANT, "Create"),
        (Action.CONSENT_WITHDRAW, "Update"),
        (Action.LOAD, "Update"),
        (Action.MODELS, "Read"),
    ],
)
def test_which_profile_a_call_declares(calls, action, profile):
    of = {subject: calls[action, subject, Outcome.SERVED] for subject in ("ab" * 32, None)}
    assert declared(of["ab" * 32]) == [f"IHE.BasicAudit.Patient{profile}"]
    assert declared(of[None]) == [f"IHE.BasicAudit.{profile}"]


@pytest.mark.parametrize(
    ("action", "client", "server"),
    [
        (Action.INFER, "110153", "110152"),
        (Action.SUBMIT, "110153", "110152"),
        (Action.FETCH, "110152", "110153"),
        (Action.CANCEL, "110150", "custodian"),
    ],
)
def test_who_is_the_source_and_who_the_destination(calls, action, client, server):
    agents = calls[action, "ab" * 32, Outcome.SERVED]["agent"]
    types = {agent["type"]["coding"][0]["code"]: agent for agent in agents}
    assert "address" not in types[client]["network"]
    assert types[server]["network"]["address"] == "urn:bedside:log:clinic/gateway-1"


def test_what_was_not_served_declares_no_profile_and_says_why(calls):
    for (action, subject, outcome), event in calls.items():
        if outcome is Outcome.SERVED:
            continue
        assert declared(event) == []
        (contained,) = event["contained"]
        assert contained["issue"][0]["details"]["text"] == "internal"
        assert "#problem" in {one["what"].get("reference") for one in event["entity"] if "what" in one}
        # But for that it follows the pattern of what was asked.
        (name,) = declared(calls[action, subject, Outcome.SERVED])
        assert faults(event, name) == ["outcome"]


def test_a_query_holds_the_facts_that_were_decided_on(calls):
    event = calls[Action.INFER, "ab" * 32, Outcome.SERVED]
    (query,) = (entity["query"] for entity in event["entity"] if "query" in entity)
    facts = json.loads(base64.b64decode(query))
    assert facts == {
        "action": "infer",
        "model": "sepsis",
        "model_version": "1",
        "data_class": "phi",
        "jurisdiction": "US-CA",
        "purpose": "TREAT",
        "consent": False,
        "emergency": False,
    }


@pytest.mark.parametrize("kind", ["access", "subject", "disclosures"])
def test_the_events_of_every_kind_of_report_hold_to_their_profiles(site, kind):
    filters = Filters(subject=hospital.SUBJECT) if kind == "subject" else Filters()
    events = events_of(site.report(kind, filters))
    assert len({event["id"] for event in events}) == len(events) >= 5
    for event in events:
        check(event)
    profiles = {name for event in events for name in declared(event)}
    if kind == "disclosures":
        assert profiles == {"IHE.BasicAudit.PrivacyDisclosure.Source"}
    else:
        assert "IHE.BasicAudit.PatientQuery" in profiles


def _drop(part, number, name):
    return lambda event: event[part][number].pop(name)


def _twice(part, number):
    return lambda event: event[part].append(event[part][number])


def _set(name, value):
    return lambda event: event.update({name: value})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_set("action", "R"), "action"),
        (_set("outcome", "4"), "outcome"),
        (_set("subtype", []), "subtype"),
        (_drop("agent", 0, "network"), "agent[client].network"),
        (_drop("agent", 1, "who"), "agent[server].who"),
        (_twice("agent", 1), "agent[server]: 2 of them"),
        (lambda event: event["agent"][2].update(requestor=False), "agent[user].requestor"),
        (lambda event: event["agent"][2].update(network={}), "agent[user].network"),
        (_drop("entity", 0, "query"), "entity[query].query"),
        (lambda event: event["entity"][0].update(what={}), "entity[query].what"),
        (_twice("entity", 1), "entity[patient]: 2 of them"),
        (_drop("entity", 1, "role"), "entity[patient].role"),
        (lambda event: event["entity"][1]["what"].update(type="Group"), "entity[patient].what"),
        (_drop("entity", 2, "what"), "entity[transaction].what.identifier.value"),
    ],
)
def test_the_profiles_themselves_are_held_to(calls, change, fault):
    event = copy.deepcopy(calls[Action.INFER, "ab" * 32, Outcome.SERVED])
    change(event)
    assert fault in faults(event, "IHE.BasicAudit.PatientQuery")


def test_no_event_says_more_of_a_person_than_a_pseudonym(site):
    event = events_of(site.report("subject", Filters(subject=hospital.SUBJECT)))[0]
    (patient,) = (one for one in event["entity"] if one["type"]["code"] == "1")
    assert patient["what"] == {
        "type": "Patient",
        "identifier": {"system": "urn:bedside:st-anna:pseudonym", "value": hospital.SUBJECT},
    }
