"""What a device signs counts once: over gRPC, and wherever a caller is known before its body is read.

Seen to fail: with the caller that `Received.admit` found not handed on, when every call of a device was
refused as token-invalid; with a device's enrolment not looked at again in a stream.
"""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

import grpc
import grpc.aio
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc import StatusCode
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from support import call, make_site, publish_linear, records_of
from support.grpc import Caller, ModelStreamInferResponse, bearer, row
from support.rpc import opened
from support.sites import free_port

from audit.records import Outcome, Problem
from bedside_client.keys import DeviceIdentity
from inference_node.schema import SERVICE
from policies import Role

SUBJECT = "mrn-1"
SYNTHETIC = (("bedside-data-class", "synthetic"),)
STREAM = f"/{SERVICE}/ModelStreamInfer"


class Place:
    """A gateway in this process with one device, enrolled by a registry as a coordinator signs it."""

    def __init__(self, site, gateway, grpc_address, url):
        self.site, self.gateway = site, gateway
        self.address, self.url = grpc_address, url
        self.device = DeviceIdentity(Ed25519PrivateKey.generate())
        self._serial = 0
        self.enrol()

    def enrol(self, *, revoked=False):
        self._serial += 1
        device = {
            "id": "phone",
            "public_key": self.device.public_key,
            "jurisdiction": "US-CA",
            "subjects": [self.site.pseudonymizer().pseudonym(SUBJECT)],
            "revoked": revoked,
        }
        fields = {
            "site": self.site.config.site,
            "serial": self._serial,
            "issued": datetime.now(UTC),
            "devices": [device],
        }
        envelope = Envelope(msgspec.json.encode(fields), "application/vnd.bedside.registry+json", {})
        envelope.sign(CryptoSigner(self.site.keys.signing_key("coordinator")))
        self.gateway.parts.directory.accept(json.dumps(envelope.to_dict()).encode())

    def assertion(self):
        return self.device.assertion("phone", self.site.config.site)

    async def call(self, method, message=None, *, token=None):
        def ask():
            with Caller(self.address, token or self.assertion()) as caller:
                return caller.call(method, message, SYNTHETIC)

        return await asyncio.to_thread(ask)


@pytest.fixture
async def place(tmp_path):
    site = make_site(tmp_path, gateway={"grpc_port": free_port()})
    publish_linear(site, tmp_path)
    async with opened(site) as at:
        yield Place(site, at.gateway, at.address, at.url)


async def test_a_device_is_served_refused_and_recorded_as_itself(place):
    assert (await place.call("ModelMetadata", None)).trailing["bedside-problem"] == "model-unknown"
    answer = await place.call("ModelInfer", row())
    assert answer.code is StatusCode.OK, answer.details
    refused = await place.call("ModelStatistics")
    assert (refused.code, refused.trailing["bedside-problem"]) == (
        StatusCode.PERMISSION_DENIED, "policy-refused")  # fmt: skip
    malformed = await place.call("ModelInfer", b"\xff\xff")
    assert malformed.trailing["bedside-problem"] == "body-malformed"
    await place.gateway.parts.log.close()
    records = records_of(place.site)
    assert {record.principal for record in records} == {"device:phone"}
    assert [record.problem for record in records] == [
        Problem.MODEL_UNKNOWN, None, Problem.POLICY_REFUSED, Problem.BODY_MALFORMED]  # fmt: skip


async def test_an_assertion_counts_for_one_call(place):
    token = place.assertion()
    assert (await place.call("ModelInfer", row(), token=token)).code is StatusCode.OK
    again = await place.call("ModelInfer", row(), token=token)
    assert (again.code, again.trailing["bedside-problem"]) == (
        StatusCode.UNAUTHENTICATED, "token-invalid")  # fmt: skip


async def test_a_stream_is_one_call_for_as_long_as_the_device_is_enrolled(place):
    metadata = (bearer(place.assertion()), *SYNTHETIC)
    async with grpc.aio.insecure_channel(place.address) as channel:
        stub = channel.stream_stream(STREAM, response_deserializer=ModelStreamInferResponse.FromString)
        stream = stub(metadata=metadata, timeout=20)
        for _ in range(2):
            await stream.write(row().SerializeToString())
            answer = await stream.read()
            assert not answer.error_message
            assert answer.infer_response.outputs
        place.enrol(revoked=True)
        await stream.write(row().SerializeToString())
        assert "token" in (await stream.read()).error_message
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    await place.gateway.parts.log.close()
    *served, refused = records_of(place.site)
    assert {record.principal for record in served} == {"device:phone"}
    assert {record.outcome for record in served} == {Outcome.SERVED}
    assert refused.problem is Problem.TOKEN_INVALID


async def test_a_token_is_looked_at_with_every_request_of_a_stream(place):
    token = place.site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
    verifier = place.gateway.parts.tokens
    async with grpc.aio.insecure_channel(place.address) as channel:
        stub = channel.stream_stream(STREAM, response_deserializer=ModelStreamInferResponse.FromString)
        stream = stub(metadata=(bearer(token),), timeout=20)
        await stream.write(row().SerializeToString())
        assert not (await stream.read()).error_message
        verifier._clock = lambda: datetime.now(UTC).timestamp() + 3600
        await stream.write(row().SerializeToString())
        assert "expired" in (await stream.read()).error_message
        stream.cancel()
        with suppress(asyncio.CancelledError):
            await stream.read()


async def test_over_rest_a_device_is_told_what_it_may_not_do_rather_than_that_it_is_unknown(place):
    def post(path, body):
        return call("POST", place.url + path, token=place.assertion(), body=body)

    index = await asyncio.to_thread(post, "/v2/repository/index", {})
    assert (index.status, index.json["type"]) == (403, "urn:bedside:problem:policy-refused")
    malformed = await asyncio.to_thread(post, "/v2/repository/index", b"[")
    assert (malformed.status, malformed.json["type"]) == (400, "urn:bedside:problem:body-malformed")
    receipt = {
        "id": str(uuid4()),
        "token": "x",
        "model_digest": "0" * 64,
        "rows": 1,
        "duration_us": 1,
        "outcome": "served",
    }
    forged = await asyncio.to_thread(post, "/v1/receipts", receipt)
    assert (forged.status, forged.json["type"]) == (400, "urn:bedside:problem:facts-invalid")
