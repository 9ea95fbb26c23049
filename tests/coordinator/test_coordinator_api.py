import errno

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, Request
from support.syncs import break_syncs

from audit import NoteVerifier, open_checkpoint
from bedside_client.keys import DeviceIdentity
from coordinator.devices import PROOF_PREFIX
from coordinator.limits import BodyLimit
from coordinator.problems import handle_problems
from policies import Role, TokenIssuer


async def enrol(api, subjects=("Ada Lovelace",)) -> tuple[dict, DeviceIdentity]:
    body = {"jurisdiction": "US-CA", "subjects": list(subjects)}
    answer = await api.call("POST", "/v1/devices/codes", Role.OPERATOR, body)
    code = answer.json()["code"]
    identity = DeviceIdentity(Ed25519PrivateKey.generate())
    enrolment = await api.call(
        "POST",
        "/v1/devices",
        None,
        {
            "code": code,
            "public_key": identity.public_key,
            "proof": identity.sign(PROOF_PREFIX + code.encode()),
        },
    )
    assert enrolment.status_code == 201
    return enrolment.json(), identity


def problem(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    fields = answer.json()
    assert fields["status"] == answer.status_code
    return fields["type"].removeprefix("urn:bedside:problem:")


async def test_an_enrolled_device_is_told_what_it_needs(api):
    enrolment, _ = await enrol(api)
    assert enrolment == {
        "device": enrolment["device"],
        "site": "mercy",
        "gateway_url": "http://127.0.0.1:8080",
        "coordinator_url": "http://coordinator",
        "trust": {"release_keys": ["0" * 64], "job_keys": ["1" * 64]},
        "cohort_minimum": 2,
        "superlink": api.parts.superlink.address,
    }


@pytest.mark.parametrize(
    ("method", "path", "permitted"),
    [
        ("GET", "/v1/devices", {Role.OPERATOR, Role.COMPLIANCE}),
        ("POST", "/v1/devices/codes", {Role.OPERATOR}),
        ("DELETE", "/v1/devices/device-1", {Role.OPERATOR}),
        (
            "GET",
            "/v1/releases",
            {Role.DEVICE, Role.OPERATOR, Role.ENGINEER, Role.RESEARCHER, Role.COMPLIANCE},
        ),
        (
            "GET",
            "/v1/releases/sepsis/1",
            {Role.DEVICE, Role.OPERATOR, Role.ENGINEER, Role.RESEARCHER, Role.COMPLIANCE},
        ),
        (
            "GET",
            "/v1/releases/sepsis/1/model.onnx",
            {Role.DEVICE, Role.OPERATOR, Role.ENGINEER, Role.RESEARCHER, Role.COMPLIANCE},
        ),
        ("POST", "/v1/federated/jobs", {Role.ENGINEER, Role.RESEARCHER}),
        (
            "GET",
            "/v1/federated/jobs",
            {Role.OPERATOR, Role.ENGINEER, Role.RESEARCHER, Role.COMPLIANCE},
        ),
        (
            "GET",
            "/v1/federated/jobs/1",
            {Role.OPERATOR, Role.ENGINEER, Role.RESEARCHER, Role.COMPLIANCE},
        ),
    ],
)
async def test_every_route_is_denied_unless_a_policy_permits_the_role(api, method, path, permitted):
    body = {"jurisdiction": "US", "model": "sepsis"} if method == "POST" else None
    body = {k: v for k, v in (body or {}).items() if ("codes" in path) == (k == "jurisdiction")}
    for role in Role:
        answer = await api.call(method, path, role, body or None)
        if role in permitted:
            assert answer.status_code not in (401, 403) or problem(answer) == "enrolment-refused"
        else:
            assert (answer.status_code, problem(answer)) == (403, "policy-refused")
    assert problem(await api.call(method, path, None, body or None)) == "token-missing"


async def test_tokens_of_another_site_or_key_are_refused(api, keys):
    for issuer in (TokenIssuer(keys.issuer, "elsewhere"), TokenIssuer(keys.job, "mercy")):
        token = issuer.issue("o.ramos", [Role.OPERATOR], lifetime_s=60)
        headers = {"Authorization": f"Bearer {token}"}
        answer = await api.client.get("/v1/devices", headers=headers)
        assert (answer.status_code, problem(answer)) == (401, "token-invalid")
    answer = await api.client.get("/v1/devices", headers={"Authorization": "Basic abc"})
    assert problem(answer) == "token-invalid"
    expired = TokenIssuer(keys.issuer, "mercy").issue("o.ramos", [Role.OPERATOR], lifetime_s=-60)
    answer = await api.client.get("/v1/devices", headers={"Authorization": f"Bearer {expired}"})
    assert problem(answer) == "token-expired"


async def test_a_device_fetches_releases_with_a_fresh_assertion_until_it_is_revoked(
    api, releases, make_release
):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    enrolment, identity = await enrol(api)

    async def fetch(path: str, assertion: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {assertion}"}
        return await api.client.get(f"/v1/releases/sepsis/{path}", headers=headers)

    assertion = identity.assertion(enrolment["device"], "mercy")
    assert (await fetch("latest", assertion)).content == document
    assert problem(await fetch("latest", assertion)) == "token-invalid"
    model = await fetch("1/model.onnx", identity.assertion(enrolment["device"], "mercy"))
    assert model.content == artifact.read_bytes()
    await api.call("DELETE", f"/v1/devices/{enrolment['device']}", Role.OPERATOR)
    refused = await fetch("1/model.onnx", identity.assertion(enrolment["device"], "mercy"))
    assert (refused.status_code, problem(refused)) == (401, "token-invalid")


async def test_the_registry_is_sent_only_when_it_has_changed(api):
    await enrol(api)
    answer = await api.client.get("/v1/registry")
    tag = {"If-None-Match": answer.headers["etag"]}
    assert (await api.client.get("/v1/registry", headers=tag)).status_code == 304
    await enrol(api)
    changed = await api.client.get("/v1/registry", headers=tag)
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')


async def test_subjects_leave_as_pseudonyms_only(api):
    enrolment, _ = await enrol(api)
    for path in ("/v1/devices", "/v1/registry"):
        answer = await api.call("GET", path, Role.OPERATOR)
        assert enrolment["device"] in answer.text or path == "/v1/registry"
        assert "Lovelace" not in answer.text


async def test_a_code_that_is_not_known_is_refused(api):
    identity = DeviceIdentity(Ed25519PrivateKey.generate())
    body = {
        "code": "made-up",
        "public_key": identity.public_key,
        "proof": identity.sign(b"bedside-enrol:made-up"),
    }
    answer = await api.call("POST", "/v1/devices", None, body)
    assert (answer.status_code, problem(answer)) == (403, "enrolment-refused")


@pytest.mark.parametrize(
    "body",
    [
        {"jurisdiction": "canary-91c2", "subjects": []},
        {"jurisdiction": "US", "subjects": [{"canary-91c2": 1}]},
        {"jurisdiction": "US", "canary-91c2": "canary-91c2"},
        ["canary-91c2"],
        "canary-91c2",
        None,
    ],
)
async def test_a_malformed_body_is_refused_without_quoting_it(api, body):
    answer = await api.call("POST", "/v1/devices/codes", Role.OPERATOR, body)
    assert (answer.status_code, problem(answer)) == (400, "body-malformed")
    assert "canary" not in answer.text


async def test_a_body_that_is_no_json_is_refused_without_quoting_it(api):
    token = api.issuer.issue("o.ramos", [Role.OPERATOR], lifetime_s=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for content in (b'{"jurisdiction": canary', b"\xff\xfe canary"):
        answer = await api.client.post("/v1/devices/codes", content=content, headers=headers)
        assert (answer.status_code, problem(answer)) == (400, "body-malformed")
        assert "canary" not in answer.text


async def test_an_oversized_body_is_refused_declared_or_not():
    app = FastAPI()
    handle_problems(app)
    app.add_middleware(BodyLimit, limit_bytes=100)

    @app.post("/")
    async def read(request: Request) -> int:
        return len(await request.body())

    async def chunks():
        for _ in range(3):
            yield b"x" * 50

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
        assert (await client.post("/", content=b"x" * 100)).json() == 100
        for content in (b"x" * 101, chunks()):
            answer = await client.post("/", content=content)
            assert (answer.status_code, problem(answer)) == (413, "body-too-large")


async def test_unknown_routes_and_methods_are_problems(api):
    assert problem(await api.client.get("/v1/nothing")) == "not-found"
    assert problem(await api.client.put("/v1/devices")) == "method-not-allowed"
    assert problem(await api.call("GET", "/v1/federated/jobs/none", Role.ENGINEER)) == "not-found"
    unknown = await api.call("POST", "/v1/federated/jobs", Role.ENGINEER, {"model": "none"})
    assert (unknown.status_code, problem(unknown)) == (404, "release-unknown")


async def test_a_job_with_too_small_a_cohort_is_a_conflict(api, releases, make_release):
    _, document, artifact = make_release()
    releases.publish(document, artifact)
    answer = await api.call("POST", "/v1/federated/jobs", Role.ENGINEER, {"model": "sepsis"})
    assert (answer.status_code, problem(answer)) == (409, "job-refused")
    (job,) = (await api.call("GET", "/v1/federated/jobs", Role.ENGINEER)).json()
    assert (job["state"], job["cohort_minimum"]) == ("refused", 2)
    one = await api.call("GET", f"/v1/federated/jobs/{job['id']}", Role.COMPLIANCE)
    assert one.json() == job


async def test_nothing_is_done_while_the_log_cannot_be_written(api, log, monkeypatch):
    enrolment, _ = await enrol(api)

    break_syncs(monkeypatch, errno.ENOSPC)
    answer = await api.call("DELETE", f"/v1/devices/{enrolment['device']}", Role.OPERATOR)
    assert (answer.status_code, problem(answer)) == (503, "log-unavailable")
    assert answer.headers["retry-after"] == "1"
    (device,) = (await api.call("GET", "/v1/devices", Role.OPERATOR)).json()
    assert device["revoked"] is False
    assert (await api.client.get("/healthz")).json()["ready"] is False


async def test_the_log_is_served_to_read(api, log):
    await enrol(api)
    note = (await api.client.get("/log/checkpoint")).content
    assert open_checkpoint(note, [log.verifier]).size == 1
    assert isinstance(log.verifier, NoteVerifier)
    assert (await api.client.get("/log/tile/0/000.p/1")).status_code == 200
    assert (await api.client.post("/log/checkpoint")).status_code == 405
