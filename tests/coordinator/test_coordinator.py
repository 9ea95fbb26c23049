"""A real coordinator process with Flower's SuperLink: enrolment, revocation, jobs, bad input."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import call, make_site, publish_linear, records_of
from support.sites import free_port

from audit.records import DeviceRecord, JobRecord
from bedside.children import Child, bedside_command
from bedside.up import environment_of
from coordinator import CoordinatorSettings
from policies import Role
from secure_gateway import DeviceDirectory


class Coordinator:
    def __init__(self, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.site = make_site(folder, coordinator=CoordinatorSettings(port=port, cohort_minimum=3))
        publish_linear(self.site, folder)
        issuer = self.site.token_issuer()
        self.operator = issuer.issue("it.operator", [Role.OPERATOR], lifetime_s=600)
        self.engineer = issuer.issue("e.ito", [Role.ENGINEER], lifetime_s=600)
        self.clinician = issuer.issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
        self.child = Child(
            "coordinator",
            bedside_command("coordinator"),
            log=folder / "coordinator.log",
            environment=environment_of(self.site.config),
        )
        self.child.wait_for(lambda line: " ready at " in line, 90)

    def code(self, subjects=("mrn-1",)):
        body = {"jurisdiction": "US-CA", "subjects": list(subjects)}
        reply = call("POST", f"{self.url}/v1/devices/codes", token=self.operator, body=body)
        assert reply.status == 201
        return reply.json["code"]

    def enroll(self, code, key=None, signer=None):
        key = key or Ed25519PrivateKey.generate()
        proof = (signer or key).sign(b"bedside-enrol:" + code.encode()).hex()
        body = {
            "code": code,
            "public_key": key.public_key().public_bytes_raw().hex(),
            "proof": proof,
        }
        return call("POST", f"{self.url}/v1/devices", body=body)

    def directory(self):
        key = self.site.keys.signing_key("coordinator").public_key()
        directory = DeviceDirectory("clinic", (key,))
        directory.accept(call("GET", f"{self.url}/v1/registry").body)
        return directory


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory):
    running = Coordinator(tmp_path_factory.mktemp("coordinator"))
    yield running
    running.child.stop()


def test_a_code_becomes_a_device_once(coordinator):
    code = coordinator.code(["mrn-7"])
    reply = coordinator.enroll(code)
    assert reply.status == 201
    device = reply.json["device"]
    assert reply.json["cohort_minimum"] == 3
    directory = coordinator.directory()
    pseudonym = coordinator.site.pseudonymizer().pseudonym("mrn-7")
    assert directory.holder_of(pseudonym) == f"device:{device}"
    assert coordinator.enroll(code).status == 403


def test_a_device_must_hold_the_key_that_it_names(coordinator):
    code = coordinator.code()
    stranger = Ed25519PrivateKey.generate()
    assert coordinator.enroll(code, signer=stranger).status == 403
    assert coordinator.enroll(code).status == 201


def test_a_key_is_enrolled_once(coordinator):
    key = Ed25519PrivateKey.generate()
    assert coordinator.enroll(coordinator.code(), key).status == 201
    assert coordinator.enroll(coordinator.code(), key).status == 403


def test_a_revoked_device_leaves_the_registry_with_a_higher_serial(coordinator):
    device = coordinator.enroll(coordinator.code()).json["device"]
    before = coordinator.directory()
    reply = call("DELETE", f"{coordinator.url}/v1/devices/{device}", token=coordinator.operator)
    assert reply.status == 200
    after = coordinator.directory()
    assert before.key_of(f"device:{device}") is not None
    assert after.key_of(f"device:{device}") is None
    assert after.serial > before.serial


def test_an_unchanged_registry_is_not_sent_again(coordinator):
    first = call("GET", f"{coordinator.url}/v1/registry")
    again = call(
        "GET", f"{coordinator.url}/v1/registry", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status, again.body) == (304, b"")


def test_who_has_no_right_is_refused_by_policy(coordinator):
    routes = [
        ("POST", "/v1/devices/codes", {"jurisdiction": "US-CA"}),
        ("GET", "/v1/devices", None),
        ("DELETE", "/v1/devices/x", None),
        ("GET", "/v1/releases", None),
        ("POST", "/v1/federated/jobs", {"model": "breast-cancer"}),
        ("GET", "/v1/federated/jobs", None),
    ]
    for method, path, body in routes:
        url = coordinator.url + path
        assert call(method, url, body=body).status == 401
        assert call(method, url, token="x.y.z", body=body).status == 401
        reply = call(method, url, token=coordinator.clinician, body=body)
        assert reply.status == 403, path
        assert reply.json["type"] == "urn:bedside:problem:policy-refused"


SECRET = "canary-91c2"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/devices/codes", {"jurisdiction": SECRET}),
        ("/v1/devices/codes", {"jurisdiction": "DE", "subjects": [{"name": SECRET}]}),
        ("/v1/devices", {"code": SECRET}),
        ("/v1/devices", {"code": SECRET, "public_key": SECRET, "proof": SECRET}),
        ("/v1/federated/jobs", {"kind": SECRET, "model": "breast-cancer"}),
        ("/v1/federated/jobs", {"model": "breast-cancer", SECRET: 1}),
    ],
)
def test_bad_input_is_refused_without_quoting_it(coordinator, path, body):
    token = coordinator.engineer if "jobs" in path else coordinator.operator
    reply = call("POST", coordinator.url + path, token=token, body=body)
    assert reply.status == 400
    assert reply.json["type"] == "urn:bedside:problem:body-malformed"
    assert SECRET not in json.dumps(reply.json)


def test_releases_are_given_to_devices_and_engineers(coordinator):
    releases = call("GET", f"{coordinator.url}/v1/releases", token=coordinator.engineer).json
    assert [(r["model"], r["version"]) for r in releases] == [("breast-cancer", "1")]
    base = f"{coordinator.url}/v1/releases/breast-cancer"
    model = call("GET", f"{base}/latest/model.onnx", token=coordinator.engineer).body
    assert len(model) == releases[0]["files"]["model.onnx"]["size"]
    for path in ("9", "../../keys/issuer.pem", "latest/release.json"):
        assert call("GET", f"{base}/{path}", token=coordinator.engineer).status == 404


def test_a_cohort_below_the_minimum_is_never_run(tmp_path):
    own = Coordinator(tmp_path)
    try:
        url = f"{own.url}/v1/federated/jobs"
        body = {"model": "breast-cancer"}
        for _ in range(2):
            own.enroll(own.code())
        reply = call("POST", url, token=own.engineer, body={**body, "cohort_minimum": 2})
        assert reply.status == 409
        assert "fewer than 3 devices" in reply.json["detail"]
        reply = call("POST", url, token=own.engineer, body=body)
        assert reply.status == 409
        assert "fewer than 3 devices" in reply.json["detail"]
        jobs = call("GET", url, token=own.engineer).json
        assert {(job["state"], job["result"]) for job in jobs} == {("refused", None)}
    finally:
        own.child.stop()
    records = records_of(own.site, "coordinator")
    assert sum(isinstance(record, DeviceRecord) for record in records) == 2
    states = {record.state for record in records if isinstance(record, JobRecord)}
    assert "refused" in states
    assert not states & {"running", "done"}
