"""The life of a policy bundle and the questions about one, through the coordinator's API."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from msgspec import structs

from audit.records import PolicyOutcome, PolicyProblem, PolicyRecord, PolicyStep
from coordinator.policy.routes import Busy
from coordinator.problems import Refused
from policies import ModelAccess, Purpose, Role, build_bundle, draft_document, with_sources
from policies.pack import PACKS

PACK_NAMES = ("base", "hipaa", "gdpr", "residency")
UNKNOWN = "ab" * 32


@pytest.fixture(scope="module")
def built():
    access = ModelAccess(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))
    bundle = build_bundle(PACK_NAMES, name="mercy", version=2, models={"sepsis": access})
    created = datetime.now(UTC).replace(microsecond=0)
    return structs.replace(with_sources(bundle, PACKS), created=created)


@pytest.fixture
async def digest(api, built):
    body = {"document": json.loads(draft_document(built))}
    answer = await api.call("POST", "/v1/policy/drafts", Role.ENGINEER, body)
    assert answer.status_code == 201
    return answer.json()["digest"]


def signature(approval, document, name):
    return json.loads(approval.signed(document, name))["signatures"][0]


async def test_a_bundle_lives_through_the_api(api, approval, built, digest):
    path = f"/v1/policy/drafts/{digest}"
    before = await api.client.get("/v1/policy/bundle")
    etag = {"If-None-Match": before.headers["etag"]}
    assert (await api.client.get("/v1/policy/bundle", headers=etag)).status_code == 304
    draft = await api.call("GET", path, Role.COMPLIANCE)
    assert draft.content == draft_document(built)
    for name, role, expected in (
        ("alice", Role.COMPLIANCE, ["alice"]),
        ("bob", Role.OPERATOR, ["alice", "bob"]),
    ):
        early = await api.call("POST", f"{path}/publish", Role.OPERATOR)
        assert (early.status_code, early.json()["title"]) == (
            409,
            "policy untrusted" if name == "alice" else "policy under signed",
        )
        body = signature(approval, draft.content, name)
        answer = await api.call("POST", f"{path}/signatures", role, body)
        assert answer.json()["approvers"] == expected
    done = await api.call("POST", f"{path}/publish", Role.OPERATOR)
    assert done.status_code == 200
    assert done.json()["version"] == 2
    assert done.json()["examination"]["problem"] is None
    after = await api.client.get("/v1/policy/bundle", headers=etag)
    assert after.status_code == 200
    assert approval.approvers.verify(after.content) == built
    assert api.parts.engine.bundle_digest == digest
    status = (await api.call("GET", "/v1/policy", Role.COMPLIANCE)).json()
    assert (status["version"], status["signed_by"]) == (2, ["alice", "bob"])
    taken = [(s["step"], s["principal"], s["problem"]) for s in status["steps"]]
    assert taken == [
        ("draft", "engineer", None),
        ("publish", "operator", "untrusted"),
        ("sign", "compliance", None),
        ("publish", "operator", "under-signed"),
        ("sign", "operator", None),
        ("publish", "operator", None),
    ]


async def test_a_rollback_is_drafted_signed_and_published(api, approval, built):
    desk = api.parts.desk
    await desk.publish(approval.signed(built))
    await desk.publish(approval.signed(structs.replace(built, version=3, residency={"US": ("US",)})))
    body = {"version": 2, "reason": "wrong-refusals"}
    drafted = await api.call("POST", "/v1/policy/rollback", Role.ENGINEER, body)
    path = f"/v1/policy/drafts/{drafted.json()['digest']}"
    document = (await api.call("GET", path, Role.COMPLIANCE)).content
    for name in ("alice", "bob"):
        body = signature(approval, document, name)
        await api.call("POST", f"{path}/signatures", Role.COMPLIANCE, body)
    done = await api.call("POST", f"{path}/publish", Role.OPERATOR)
    assert (done.status_code, done.json()["version"]) == (200, 4)
    assert api.parts.engine.bundle.residency == built.residency
    for wrong in ({"version": 9, "reason": "law-changed"}, {"version": 2, "reason": "a sentence"}):
        answer = await api.call("POST", "/v1/policy/rollback", Role.ENGINEER, wrong)
        assert answer.status_code in (400, 404)


ROUTES = {
    ("GET", "/v1/policy"): ({Role.OPERATOR, Role.ENGINEER, Role.COMPLIANCE}, None),
    ("POST", "/v1/policy/drafts"): ({Role.ENGINEER, Role.COMPLIANCE}, {"document": {}}),
    ("POST", "/v1/policy/rollback"): (
        {Role.ENGINEER, Role.COMPLIANCE},
        {"version": 1, "reason": "law-changed"},
    ),
    ("GET", f"/v1/policy/drafts/{UNKNOWN}"): (
        {Role.OPERATOR, Role.ENGINEER, Role.COMPLIANCE},
        None,
    ),
    ("DELETE", f"/v1/policy/drafts/{UNKNOWN}"): ({Role.ENGINEER, Role.COMPLIANCE}, None),
    ("POST", f"/v1/policy/drafts/{UNKNOWN}/signatures"): (
        {Role.OPERATOR, Role.COMPLIANCE},
        {"keyid": "a", "sig": "b"},
    ),
    ("POST", f"/v1/policy/drafts/{UNKNOWN}/publish"): ({Role.OPERATOR}, None),
    ("POST", f"/v1/policy/bundles/{UNKNOWN}/check"): (
        {Role.OPERATOR, Role.ENGINEER, Role.COMPLIANCE},
        None,
    ),
    ("POST", f"/v1/policy/bundles/{UNKNOWN}/replay"): ({Role.COMPLIANCE}, {}),
    ("PUT", "/v1/policy/shadow"): ({Role.ENGINEER, Role.COMPLIANCE}, {"digest": UNKNOWN}),
    ("DELETE", "/v1/policy/shadow"): ({Role.ENGINEER, Role.COMPLIANCE}, None),
    ("GET", "/v1/policy/shadow/report"): ({Role.COMPLIANCE}, None),
}


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_every_route_is_denied_unless_a_policy_permits_and_refusals_are_recorded(
    api, recorded, route
):
    permitted, body = ROUTES[route]
    refused = set()
    for role in Role:
        answer = await api.call(*route, role, body)
        if role in permitted:
            assert answer.status_code not in (401, 403)
        else:
            assert answer.status_code == 403
            refused.add(role.value)
    assert (await api.call(*route, None, body)).status_code == 401
    records = [record for record in recorded() if isinstance(record, PolicyRecord)]
    denied = [r for r in records if r.problem is PolicyProblem.NOT_PERMITTED]
    assert {record.principal for record in denied} == {*refused, None}
    assert {record.outcome for record in denied} == {PolicyOutcome.REFUSED}


async def test_a_draft_is_checked_tested_proved_and_explained(api, recorded, digest):
    for tool, found in (("check", {}), ("test", {"cases": 1}), ("prove", {"proved": 1})):
        answer = await api.call("POST", f"/v1/policy/bundles/{digest}/{tool}", Role.ENGINEER)
        assert answer.json()["problem"] is None
        assert all(answer.json()[name] >= least for name, least in found.items())
    question = {
        "roles": ["clinician"],
        "model": "sepsis",
        "jurisdiction": "DE",
        "candidates": [{"placement": "node:us", "jurisdiction": "US-CA"}],
    }
    path = f"/v1/policy/bundles/{digest}/explain"
    answer = (await api.call("POST", path, Role.ENGINEER, question)).json()
    assert answer["permitted"] == []
    assert "gdpr-transfer" in answer["policies"]
    assert answer["explanation"].startswith("Refused: PHI data of DE for TREAT")
    found = await api.call("POST", f"/v1/policy/bundles/{digest}/diff", Role.ENGINEER)
    assert any("hipaa-treatment" in change["after_policies"] for change in found.json()["changes"])
    steps = [record.step for record in recorded() if isinstance(record, PolicyRecord)]
    assert steps == [
        PolicyStep.CHECK,
        PolicyStep.TEST,
        PolicyStep.PROVE,
        PolicyStep.EXPLAIN,
        PolicyStep.DIFF,
    ]
    assert answer["flips"]
    in_force = await api.call("POST", "/v1/policy/bundles/in-force/explain", Role.ENGINEER, question)
    assert "base-jurisdiction" in in_force.json()["policies"]


async def test_recorded_requests_are_replayed(api, digest):
    path = f"/v1/policy/bundles/{digest}/replay"
    answer = await api.call("POST", path, Role.COMPLIANCE, {"since": "2026-01-01T00:00:00Z"})
    assert answer.json()["found"]["decided"] == 0
    assert (await api.call("POST", path, Role.COMPLIANCE, {"since": "lately"})).status_code == 400


async def test_a_shadow_is_started_served_and_stopped(api, approval, built, digest):
    assert (await api.client.get("/v1/policy/shadow")).status_code == 404
    body = {"digest": digest}
    unsigned = await api.call("PUT", "/v1/policy/shadow", Role.ENGINEER, body)
    assert unsigned.status_code == 409
    path = f"/v1/policy/drafts/{digest}/signatures"
    one = signature(approval, draft_document(built), "bob")
    await api.call("POST", path, Role.COMPLIANCE, one)
    started = await api.call("PUT", "/v1/policy/shadow", Role.ENGINEER, body)
    assert (started.status_code, started.json()) == (200, {"version": 2})
    served = await api.client.get("/v1/policy/shadow")
    assert approval.approvers.names_on(served.content) == ("bob",)
    report = await api.call("GET", "/v1/policy/shadow/report", Role.COMPLIANCE)
    assert report.json()["differing"] == 0
    assert (await api.call("DELETE", "/v1/policy/shadow", Role.ENGINEER)).status_code == 200
    assert (await api.client.get("/v1/policy/shadow")).status_code == 404


BAD = [
    ("POST", "/v1/policy/drafts", {"document": {"payload": "canary-1"}}),
    ("POST", "/v1/policy/drafts", {"document": "canary-1"}),
    ("POST", "/v1/policy/drafts", {"canary-1": {}}),
    ("POST", "/v1/policy/drafts/canary-1/publish", None),
    ("GET", "/v1/policy/drafts/..%2F..%2Fcanary-1", None),
    ("POST", f"/v1/policy/drafts/{UNKNOWN}/signatures", {"keyid": "canary-1", "sig": "canary-1"}),
    ("POST", "/v1/policy/bundles/canary-1/check", None),
    ("POST", "/v1/policy/bundles/in-force/canary-1", None),
    ("POST", "/v1/policy/bundles/in-force/explain", {"roles": ["canary-1"]}),
    ("POST", "/v1/policy/rollback", {"version": 1, "reason": "canary-1"}),
    ("PUT", "/v1/policy/shadow", {"digest": "canary-1"}),
]


@pytest.mark.parametrize("number", range(len(BAD)))
async def test_bad_input_is_refused_and_neither_repeated_nor_recorded(api, recorded, number):
    method, path, body = BAD[number]
    for role in (Role.COMPLIANCE, Role.OPERATOR, Role.ENGINEER):
        answer = await api.call(method, path, role, body)
        assert 400 <= answer.status_code < 500
        assert "canary-1" not in answer.text
    steps = await asyncio.to_thread(api.parts.desk.ledger.read)
    assert "canary-1" not in repr([*recorded(), *steps])


async def test_one_examination_runs_at_a_time_and_another_is_told_to_come_again():
    busy = Busy()
    busy.enter()
    with pytest.raises(Refused, match="try again"):
        await busy.run(lambda: 1)
    busy.leave()
    assert await busy.run(lambda: 1) == 1
