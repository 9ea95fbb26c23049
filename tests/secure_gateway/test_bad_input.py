"""Every kind of bad input: the right status, a clear problem, a record, and no harm to others."""

import json

import pytest
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.sites import ROW

from audit.records import Outcome
from policies import AssertedFacts, DataClass, Role

LIMIT = 4096


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    site = make_site(folder, gateway={"body_limit_bytes": LIMIT})
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as running:
        yield running


def tensor(**changes):
    return {"inputs": [{**ROW["inputs"][0], **changes}]}


INFER = "/v2/models/breast-cancer/infer"
CASES = {
    "a body that is not JSON": (INFER, b"{", {}, 400, "body-malformed"),
    "a body of another schema": (INFER, b'{"x": 1}', {}, 400, "body-malformed"),
    "an empty body": (INFER, b"", {}, 400, "body-malformed"),
    "data that contradicts its shape": (
        INFER, tensor(data=[1.0]), {}, 400, "body-malformed"),
    "a wrong shape": (INFER, tensor(shape=[3]), {}, 400, "input-invalid"),
    "a wrong datatype": (
        INFER, tensor(datatype="INT32", data=[1, 2, 3]), {}, 400, "input-invalid"),
    "an unknown input": (INFER, tensor(name="z"), {}, 400, "input-invalid"),
    "an unknown output": (
        INFER, {**ROW, "outputs": [{"name": "z"}]}, {}, 400, "input-invalid"),
    "an unknown model": ("/v2/models/nothing/infer", ROW, {}, 404, "model-unknown"),
    "an unknown version": (
        "/v2/models/breast-cancer/versions/9/infer", ROW, {}, 404, "model-unknown"),
    "an oversized body": (INFER, b" " * (LIMIT + 1), {}, 413, "body-too-large"),
    "a strange fact": (INFER, ROW, {"Bedside-Purpose": "FUN"}, 400, "facts-invalid"),
    "a strange flag": (INFER, ROW, {"Bedside-Consent": "maybe"}, 400, "facts-invalid"),
    "a strange jurisdiction": (
        INFER, ROW, {"Bedside-Jurisdiction": "us"}, 400, "facts-invalid"),
    "an endless subject": (INFER, ROW, {"Bedside-Subject": "x" * 300}, 400, "facts-invalid"),
    "a subject beyond ASCII": (INFER, ROW, {"Bedside-Subject": "Zoë"}, 400, "facts-invalid"),
    "a placement's subject beyond ASCII": (
        "/v1/placements", {"model": "breast-cancer", "subject": "Zoë"}, {}, 400, "facts-invalid"),
    "a header length that is no number": (
        INFER, ROW, {"Inference-Header-Content-Length": "x"}, 400, "body-malformed"),
    "a header length past the body": (
        INFER, ROW, {"Inference-Header-Content-Length": "9999"}, 400, "body-malformed"),
    "a header length of 5,000 digits": (
        INFER, ROW, {"Inference-Header-Content-Length": "9" * 5000}, 400, "body-malformed"),
    "data in 1,000 lists": (INFER, b"[" * 2000 + b"]" * 2000, {}, 400, "body-malformed"),
    "a name that is not UTF-8": (
        INFER, b'{"inputs":[{"name":"\xff","shape":[1],"datatype":"FP32","data":[1]}]}', {},
        400, "body-malformed"),
    "a path that is not there": ("/v2/nothing", ROW, {}, 404, "not-found"),
    "a path outside the API": ("/admin", ROW, {}, 404, "not-found"),
    "placement with an unknown member": (
        "/v1/placements", {"model": "breast-cancer", "why": 1}, {}, 400, "body-malformed"),
    "placement in 1,000 lists": ("/v1/placements", b"[" * 20000, {}, 400, "body-malformed"),
    "placement that is not UTF-8": (
        "/v1/placements", b'{"model": "\xff"}', {"Content-Type": "application/json"},
        400, "body-malformed"),
    "an oversized placement": ("/v1/placements", b" " * 65537, {}, 413, "body-too-large"),
    "a receipt that was not given out": (
        "/v1/receipts",
        {"id": "00000000-0000-4000-8000-000000000000", "token": "x", "model_digest": "0" * 64,
         "rows": 1, "duration_us": 1, "outcome": "served"},
        {}, 400, "facts-invalid"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_requests(gateway, case):
    path, body, headers, status, problem = CASES[case]
    reply = call("POST", gateway.url + path, token=gateway.token(), headers=headers, body=body)
    assert reply.status == status
    plain = path.startswith("/v2")
    assert reply.headers["content-type"] == f"application/{'json' if plain else 'problem+json'}"
    document = reply.json
    assert document["type"] == f"urn:bedside:problem:{problem}"
    assert document["status"] == status
    assert document["error"].startswith(document["title"])
    assert "#" in document["record"]
    assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200


def test_a_body_without_a_stated_length_is_still_limited(gateway):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", gateway.site.config.gateway.port)
    headers = {"Authorization": f"Bearer {gateway.token()}", "Transfer-Encoding": "chunked"}
    connection.request(
        "POST", INFER, body=iter([b" " * 1000] * 8), headers=headers, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (None, "token-missing"),
        ("", "token-invalid"),
        ("not.a.token", "token-invalid"),
        ("x" * 9000, "token-invalid"),
    ],
)
def test_callers_without_a_good_token(gateway, token, problem):
    reply = call("POST", gateway.infer_url, token=token, body=ROW)
    assert reply.status == 401
    assert reply.json["type"] == f"urn:bedside:problem:{problem}"
    assert reply.headers["www-authenticate"].startswith("Bearer")


def test_an_expired_token(gateway):
    reply = call("POST", gateway.infer_url, token=gateway.token(hours=-1), body=ROW)
    assert (reply.status, reply.json["type"]) == (401, "urn:bedside:problem:token-expired")


def test_a_token_of_another_site(gateway, tmp_path):
    stranger = make_site(tmp_path).token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=60)
    assert call("POST", gateway.infer_url, token=stranger, body=ROW).status == 401


def test_a_fact_that_is_sent_twice_is_refused(gateway):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", gateway.site.config.gateway.port)
    connection.putrequest("POST", INFER)
    body = json.dumps(ROW).encode()
    for name, value in (
        ("Authorization", f"Bearer {gateway.token()}"),
        ("Bedside-Jurisdiction", "DE"),
        ("Bedside-Jurisdiction", "US"),
        ("Content-Length", str(len(body))),
    ):
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    assert response.status == 400
    assert json.load(response)["type"] == "urn:bedside:problem:facts-invalid"
    connection.close()


def test_what_a_token_asserts_outranks_what_the_caller_claims(gateway):
    asserted = AssertedFacts(jurisdiction="DE", data_class=DataClass.PHI)
    token = gateway.site.token_issuer().issue(
        "dr.adams", [Role.CLINICIAN], lifetime_s=60, asserted=asserted
    )
    claims = {"Bedside-Jurisdiction": "US-CA", "Bedside-Data-Class": "synthetic"}
    reply = call("POST", gateway.infer_url, token=token, headers=claims, body=ROW)
    assert reply.status == 403
    assert reply.json["policies"] == ["gdpr-transfer"]


def test_other_methods_are_refused_and_probes_are_open(gateway):
    reply = call("GET", gateway.infer_url, token=gateway.token())
    assert reply.status == 405
    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        assert call("GET", gateway.url + path).status == 200
    models = f"{gateway.url}/v2/models/breast-cancer"
    assert call("GET", models).status == 401
    reply = call("GET", models, token=gateway.token())
    assert reply.json["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert call("GET", f"{models}/ready", token=gateway.token()).status == 200
    assert call("GET", f"{models}/versions/7/ready", token=gateway.token()).status == 404


def test_each_of_them_left_a_record(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        for path, body, headers, _, _ in CASES.values():
            call("POST", gateway.url + path, token=gateway.token(), headers=headers, body=body)
        call("POST", gateway.infer_url, body=ROW)
    records = records_of(site)
    assert len(records) == len(CASES) + 1
    # The body limit is the default here, so the large one is malformed instead.
    expected = [problem for *_, problem in CASES.values()]
    expected[expected.index("body-too-large")] = "body-malformed"
    assert [record.problem for record in records] == [*expected, "token-missing"]
    assert all(record.outcome is Outcome.REFUSED for record in records)
