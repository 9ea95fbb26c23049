"""The device channel against a real gateway: requests travel to the data, tensors do not."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import aiohttp
import msgspec
import numpy as np
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.models import publish_typed
from support.work import until

from bedside_client import DeviceState, Enrolment, SqliteData, Trust
from bedside_client.agent import Agent
from bedside_client.packages import PackageStore
from coordinator import CoordinatorSettings
from secure_gateway.channel import DeviceConnection, DeviceOffline

SUBJECT, STRANGER = "mrn-1", "mrn-2"
ASK = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32"}]}


class Registry:
    """Serves a signed device registry, as a coordinator does."""

    def __init__(self):
        self.document = b"{}"
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(registry.document)))
                self.end_headers()
                self.wfile.write(registry.document)

            def log_message(self, *_):
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sign(self, site, serial, devices):
        fields = {
            "site": site.config.site,
            "serial": serial,
            "issued": datetime.now(UTC),
            "devices": devices,
        }
        envelope = Envelope(msgspec.json.encode(fields), "application/vnd.bedside.registry+json", {})
        envelope.sign(CryptoSigner(site.keys.signing_key("coordinator")))
        self.document = json.dumps(envelope.to_dict()).encode()


class Place:
    """A gateway, its registry, and one enrolled device with one patient."""

    def __init__(self, folder, publish=publish_linear):
        self.registry = Registry()
        self.site = make_site(
            folder,
            coordinator=CoordinatorSettings(url=self.registry.url),
            gateway={"registry_poll_s": 0.1, "device_timeout_s": 5},
        )
        self.release = publish(self.site, folder)
        self.gateway = GatewayProcess(self.site, folder)
        self.state = self.enrol(folder / "device")
        self.sign(1)

    def enrol(self, folder, name="phone"):
        folder.mkdir()
        release_key = self.site.keys.signing_key("release").public_key().public_bytes_raw().hex()
        enrolment = Enrolment(
            device=name,
            site="clinic",
            gateway_url=self.gateway.url,
            coordinator_url=self.registry.url,
            trust=Trust(release_keys=(release_key,), job_keys=()),
            cohort_minimum=10,
        )
        from bedside_client.keys import DeviceIdentity

        DeviceIdentity.open(folder / "identity.key")
        state = DeviceState.create(folder, enrolment)
        SqliteData(state.data).write([(SUBJECT, np.array([1, 2, 3], np.float32), 1)])
        source = self.site.releases().path("breast-cancer", "1")
        PackageStore.of(state).install(
            (source / "release.json").read_bytes(),
            (source / "model.onnx").read_bytes(),
            "breast-cancer",
        )
        return state

    def sign(self, serial, *, revoked=False, others=()):
        pseudonyms = map(self.site.pseudonymizer().pseudonym, (SUBJECT, STRANGER))
        device = {
            "id": "phone",
            "public_key": self.state.identity.public_key,
            "jurisdiction": "US-CA",
            "subjects": list(pseudonyms),
            "revoked": revoked,
        }
        self.registry.sign(self.site, serial, [device, *others])

    async def ask(self, subject=SUBJECT, body=ASK, token=None, **headers):
        return await asyncio.to_thread(
            call,
            "POST",
            self.gateway.infer_url,
            token=token or self.gateway.token(),
            headers={"Bedside-Subject": subject, **headers},
            body=body,
        )


@pytest.fixture
def place(request, tmp_path):
    place = Place(tmp_path, getattr(request, "param", publish_linear))
    with place.gateway:
        yield place
    place.registry.server.shutdown()
    place.registry.server.server_close()


@asynccontextmanager
async def connected(place, **options):
    """Run the device's agent until the block ends."""
    up = asyncio.Event()

    def event(name, _):
        if name == "connected":
            up.set()

    running = asyncio.create_task(Agent(place.state, event=event, **options).run(()))
    async with asyncio.timeout(20):
        await up.wait()
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_device_answers_from_its_own_row(place):
    async with connected(place):
        reply = await place.ask()
    assert reply.status == 200
    assert reply.json["parameters"]["bedside_placement"] == "device:phone"
    assert "residency-on-device" in reply.json["parameters"]["bedside_policies"]
    (output,) = reply.json["outputs"]
    z = np.exp(np.array([1, 2, 3]) @ np.linspace(-1, 1, 6).reshape(3, 2))
    assert np.allclose(output["data"], z / z.sum(), atol=1e-6)
    place.gateway.stop()
    record = records_of(place.site)[-1]
    assert (record.placement, record.model_digest) == ("device:phone", place.release.digest)


@pytest.mark.parametrize("place", [publish_typed], indirect=True)
async def test_a_model_on_a_device_takes_and_gives_what_its_release_says(place):
    """Seen to fail when a device fed every model float32 and called every answer FP32."""
    async with connected(place):
        reply = await place.ask(body={"inputs": [{**ASK["inputs"][0], "datatype": "INT64"}]})
    assert reply.status == 200
    assert {
        output["name"]: (output["datatype"], output["data"]) for output in reply.json["outputs"]
    } == {
        "same": ("INT64", [1, 2, 3]),
        "fine": ("FP64", [1.0, 2.0, 3.0]),
        "any": ("BOOL", [True, True, True]),
        "text": ("BYTES", ["1", "2", "3"]),
    }


PAYLOAD = {"inputs": [{**ASK["inputs"][0], "data": [1.0, 2.0, 3.0]}]}


async def test_a_device_asks_about_its_own_person_and_no_other(place):
    """Seen to fail without `base-own-device`: the tablet got an answer of the phone's person."""
    tablet = place.enrol(place.state.folder.parent / "tablet", "tablet")
    key = tablet.identity.public_key
    place.sign(2, others=[{"id": "tablet", "public_key": key, "jurisdiction": "US-CA"}])
    async with asyncio.timeout(20):
        # Until the gateway has the new registry, it does not know the tablet at all.
        while (stolen := await place.ask(token=tablet.assertion())).status == 401:
            pass
    async with connected(place):
        own = await place.ask(token=place.state.assertion())
        stolen = await place.ask(token=tablet.assertion())
        consent = {"Bedside-Consent": "true"}
        brought = await place.ask(body=PAYLOAD, token=tablet.assertion(), **consent)
    assert (own.status, own.json["parameters"]["bedside_placement"]) == (200, "device:phone")
    for refused in (stolen, brought):
        assert (refused.status, refused.json["type"]) == (403, "urn:bedside:problem:policy-refused")
        assert "base-own-device" in refused.json["policies"]
    place.gateway.stop()
    assert records_of(place.site)[-1].placement is None


ONLY_NODES = {
    "quantiles": {"parameters": {"quantiles": "0.5"}},
    "classes": {"outputs": [{"name": "y", "parameters": {"classification": 1}}]},
    "no class": {"outputs": [{"name": "y", "parameters": {"classification": 0}}]},
}


@pytest.mark.parametrize("asked", ONLY_NODES.values(), ids=ONLY_NODES)
async def test_what_only_nodes_compute_is_not_left_out_in_silence(place, asked):
    async with connected(place):
        reply = await place.ask(body={**ASK, **asked})
    assert (reply.status, reply.json["type"]) == (400, "urn:bedside:problem:input-invalid")


async def test_while_the_device_is_away_nothing_runs_elsewhere(place):
    reply = await place.ask()
    assert reply.status == 503
    assert reply.json["type"] == "urn:bedside:problem:device-offline"
    assert int(reply.headers["retry-after"]) > 0


async def test_the_person_on_the_device_has_the_last_word(place):
    async with connected(place, consent=lambda _: False):
        reply = await place.ask()
    assert (reply.status, reply.json["type"]) == (403, "urn:bedside:problem:device-refused")
    place.gateway.stop()
    assert records_of(place.site)[-1].problem == "device-refused"


async def test_a_device_that_does_not_hold_the_subject_says_so(place):
    async with connected(place):
        reply = await place.ask(STRANGER)
    assert (reply.status, reply.json["type"]) == (403, "urn:bedside:problem:device-refused")


async def test_a_revoked_device_is_cut_off_and_stays_out(place):
    async with connected(place):
        assert (await place.ask()).status == 200
        place.sign(2, revoked=True)
        async with asyncio.timeout(20):
            # Its data is then with nobody, so a request without data can run nowhere.
            while (await place.ask()).status != 403:
                pass


def socket_to(place, session, token):
    return session.ws_connect(
        f"{place.gateway.url}/v1/channel", headers={"Authorization": f"Bearer {token}"}
    )


async def test_nobody_but_an_enrolled_device_gets_a_channel(place):
    stranger = place.enrol(place.state.folder.parent / "stranger")
    used = place.state.assertion()
    async with aiohttp.ClientSession() as session:
        async with socket_to(place, session, used):
            pass
        for token in (used, stranger.assertion(), place.gateway.token(), "nonsense"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await socket_to(place, session, token)
            assert refused.value.status == 403


FRAMES = {
    "no JSON": "{",
    "an unknown frame": '{"type": "shutdown"}',
    "a nameless result": '{"type": "result", "id": 1}',
    "100,000 lists": '{"type":"result","id":1,"outputs":' + "[" * 100_000,
    "a strange digest": '{"type":"result","id":1,"version":"1","digest":"x","outputs":[]}',
}


@pytest.mark.parametrize("case", FRAMES)
async def test_a_device_that_talks_nonsense_is_hung_up_on(place, case):
    async with (
        aiohttp.ClientSession() as session,
        socket_to(place, session, place.state.assertion()) as socket,
    ):
        await socket.send_str(FRAMES[case])
        message = await socket.receive(timeout=20)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert socket.close_code == 1002
    assert (await place.ask()).status == 503


OUTPUT = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}
ANSWERS = {
    "another model": ({"digest": "ab" * 32}, 502),
    "a version that was never released": ({"version": "7"}, 502),
    "a tensor that is none": ({"outputs": [{**OUTPUT, "shape": [2]}]}, 502),
    "a number past 64 bits": ({"outputs": [{**OUTPUT, "datatype": "INT64", "data": [2**70]}]}, 502),
    "text for numbers": ({"outputs": [{**OUTPUT, "data": ["x"]}]}, 502),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_that_cannot_be_right_is_not_passed_on(place, case):
    change, status = ANSWERS[case]
    async with (
        aiohttp.ClientSession() as session,
        socket_to(place, session, place.state.assertion()) as socket,
    ):
        await socket.send_json({"type": "ready", "models": []})
        assert (await socket.receive_json())["type"] == "welcome"
        asking = asyncio.create_task(place.ask())
        asked = await socket.receive_json()
        assert set(asked) == {
            "type", "id", "request_id", "model", "version", "subject", "inputs", "outputs",
            "deadline_ms",
        }  # fmt: skip
        answer = {
            "type": "result",
            "id": asked["id"],
            "version": "1",
            "digest": place.release.digest,
            "outputs": [],
        }
        await socket.send_json({**answer, **change})
        assert (await asking).status == status


async def test_work_waits_for_a_device_that_is_busy(place):
    """Seen to fail: the device's own word that it is busy said not when to come again."""
    url = f"{place.gateway.url}/v1/models/breast-cancer/work"
    headers, token = {"Bedside-Subject": SUBJECT}, place.gateway.token()
    async with (
        aiohttp.ClientSession() as session,
        socket_to(place, session, place.state.assertion()) as socket,
    ):
        await socket.send_json({"type": "ready", "models": []})
        await socket.receive_json()
        submitted = await asyncio.to_thread(call, "POST", url, token=token, headers=headers, body=ASK)
        for _ in range(2):
            asked = await socket.receive_json(timeout=20)
            await socket.send_json({"type": "error", "id": asked["id"], "code": "busy"})
    work = await asyncio.to_thread(
        call, "GET", place.gateway.url + submitted.headers["location"], token=token
    )
    assert work.json["state"] in ("queued", "running")


async def test_a_connection_that_drops_fails_its_requests_at_once(place):
    async with aiohttp.ClientSession() as session:
        async with socket_to(place, session, place.state.assertion()) as socket:
            await socket.send_json({"type": "ready", "models": []})
            await socket.receive_json()
            asking = asyncio.create_task(place.ask())
            await socket.receive_json()
        assert (await asking).json["type"] == "urn:bedside:problem:device-offline"


async def test_work_that_a_device_dropped_each_time_is_sent_as_often_as_it_may(place):
    """Seen to fail: a drop in the middle said that the device was offline, and cost no attempt."""
    url = f"{place.gateway.url}/v1/models/breast-cancer/work"
    headers, token = {"Bedside-Subject": SUBJECT}, place.gateway.token()
    async with aiohttp.ClientSession() as session:
        work = None
        for _ in range(3):
            async with socket_to(place, session, place.state.assertion()) as socket:
                await socket.send_json({"type": "ready", "models": []})
                await socket.receive_json()
                work = work or await asyncio.to_thread(
                    call, "POST", url, token=token, headers=headers, body=ASK
                )
                assert (await socket.receive_json(timeout=20))["type"] == "infer"
    ended = await asyncio.to_thread(
        until, place.gateway, place.gateway.url + work.headers["location"], "failed"
    )
    assert ended["problem"] == "urn:bedside:problem:device-offline"


async def asked_of(send, timeout_s):
    """Ask a device whose frames go to `send`."""
    return await DeviceConnection("device:phone", send).infer(
        request_id=uuid4(),
        model="breast-cancer",
        version=None,
        subject=None,
        inputs=(),
        outputs=(),
        timeout_s=timeout_s,
    )


def gone_after(frames):
    """Return a `send` of a connection that is gone after so many frames, and an event at the first."""
    left, sent = [None] * frames, asyncio.Event()

    async def send(_):
        if not left:
            raise OSError
        left.pop()
        sent.set()

    return send, sent


async def test_a_device_that_is_gone_when_it_is_told_to_stop_had_the_request():
    """Seen to fail: the error of telling it stood for the deadline, or for the caller's leaving."""
    with pytest.raises(DeviceOffline):
        await asked_of(gone_after(0)[0], timeout_s=5)
    with pytest.raises(TimeoutError):
        await asked_of(gone_after(1)[0], timeout_s=0.01)
    send, sent = gone_after(1)
    asking = asyncio.create_task(asked_of(send, timeout_s=60))
    await sent.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
