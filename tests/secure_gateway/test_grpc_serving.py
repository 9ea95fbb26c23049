"""A gateway's gRPC side in this process: cancellation, deadlines, health, streams, and its end."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import grpc
import grpc.aio
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from support import make_site, publish_linear, records_of
from support.grpc import ModelStreamInferResponse, bearer, row
from support.held import Held
from support.http2 import exchange, headers_of
from support.rpc import opened
from support.sites import free_port

from audit.records import Action, Outcome
from inference_node.schema import SERVICE, message_class
from policies import Role
from secure_gateway.rpc.health import HEALTH

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
PATIENCE_S = 20


class Served:
    def __init__(self, site, address, stop, serving):
        self.site = site
        self.address = address
        self.stop = stop
        self.serving = serving
        token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
        self.metadata = (bearer(token),)

    def infer(self, channel, request=None, **options):
        stub = channel.unary_unary(INFER)
        body = (row() if request is None else request).SerializeToString()
        return stub(body, metadata=self.metadata, **{"timeout": PATIENCE_S, **options})

    def stream(self, channel):
        stub = channel.stream_stream(STREAM, response_deserializer=ModelStreamInferResponse.FromString)
        return stub(metadata=self.metadata, timeout=PATIENCE_S)

    def channel(self):
        # Each with a connection of its own.
        return grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture
async def served(tmp_path):
    site = make_site(tmp_path, gateway={"grpc_port": free_port()})
    publish_linear(site, tmp_path)
    async with opened(site) as at:
        yield Served(site, at.address, at.stop, at.serving)


async def answered(served):
    async with served.channel() as channel:
        try:
            return await served.infer(channel)
        except grpc.aio.AioRpcError:
            return None


@asynccontextmanager
async def patience():
    async with asyncio.timeout(PATIENCE_S):
        yield


async def test_a_call_that_is_cancelled_ends_its_work_and_is_recorded(served, monkeypatch):
    held = Held(monkeypatch)
    async with patience(), served.channel() as channel:
        call = served.infer(channel)
        await held.begun()
        call.cancel()
        await held.cancelled.wait()
    served.stop.set()
    await served.serving
    (record,) = records_of(served.site)
    assert (record.outcome, record.placement) == (Outcome.ABANDONED, "node:local")


async def test_a_deadline_is_the_works_own(served, monkeypatch):
    held = Held(monkeypatch)
    async with patience(), served.channel() as channel:
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await served.infer(channel, timeout=0.5)
        assert late.value.code() is StatusCode.DEADLINE_EXCEEDED
        await held.cancelled.wait()
        held.go.set()
        await served.infer(channel, timeout=None)
    assert began < held.deadlines[0] <= time.monotonic() + 0.5
    assert held.deadlines[1] is None


async def test_what_cannot_be_in_time_is_refused_at_once(served):
    path = INFER.encode()
    headers = [(key.encode(), value.encode()) for key, value in served.metadata]
    # A nanosecond: over before the message was read.
    sent = headers_of(path, *headers, (b"grpc-timeout", b"1n"))
    async with patience():
        reply = await asyncio.to_thread(exchange, served.address, sent, row().SerializeToString())
    assert b"grpc-status\x014" in reply


async def test_a_message_that_does_not_come_is_not_waited_for(served, monkeypatch):
    monkeypatch.setattr("secure_gateway.rpc.received.MESSAGE_TIMEOUT_S", 0.05)
    async with patience(), served.channel() as channel:
        # On the wire a call is a stream of one message, which this one keeps to itself.
        call = channel.stream_unary(INFER)(metadata=served.metadata, timeout=PATIENCE_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is StatusCode.INVALID_ARGUMENT
        assert await served.infer(channel)


async def test_what_was_taken_is_finished_before_the_gateway_stops(served, monkeypatch):
    held = Held(monkeypatch)
    async with patience(), served.channel() as channel, served.channel() as probe:
        watch = probe.unary_stream(
            f"/{HEALTH}/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )(HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == SERVING
        call = served.infer(channel)
        stream = served.stream(channel)
        await stream.write(row(id="s").SerializeToString())
        await held.begun(2)
        served.stop.set()
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        assert not served.serving.done()
        held.go.set()
        assert await call
        assert (await stream.read()).infer_response.id == "s"
        assert await stream.code() is StatusCode.UNAVAILABLE
        await served.serving
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.infer(channel)
        assert refused.value.code() is StatusCode.UNAVAILABLE


async def test_requests_of_a_stream_run_side_by_side_and_are_answered_in_order(served, monkeypatch):
    held = Held(monkeypatch)
    names = [str(n) for n in range(40)]
    async with patience(), served.channel() as channel:
        stream = served.stream(channel)
        for name in names:
            model = "nothing" if name == "20" else "breast-cancer"
            await stream.write(row(id=name, model=model).SerializeToString())
        await stream.write(b"\xff")
        await stream.done_writing()
        await held.begun(10)
        held.go.set()
        answers = [answer async for answer in stream]
        assert await stream.code() is StatusCode.OK
    assert [answer.infer_response.id for answer in answers] == [*names, ""]
    assert [bool(answer.error_message) for answer in answers] == [name == "20" for name in names] + [
        True
    ]
    assert "model" in answers[20].error_message
    assert all(
        answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers
    )


async def test_a_stream_that_is_cancelled_ends_all_its_work(served, monkeypatch):
    held = Held(monkeypatch)
    async with patience(), served.channel() as channel:
        stream = served.stream(channel)
        for name in ("a", "b", "c"):
            await stream.write(row(id=name).SerializeToString())
        await held.begun(3)
        stream.cancel()
        await held.cancelled.wait()
    served.stop.set()
    await served.serving
    records = records_of(served.site)
    assert [(r.action, r.outcome) for r in records] == [(Action.STREAM, Outcome.ABANDONED)] * 3


async def test_a_method_whose_name_is_no_text_stops_nobody_else(served, monkeypatch, caplog):
    held = Held(monkeypatch)
    async with patience(), served.channel() as channel:
        call = served.infer(channel)
        await held.begun()
        for _ in range(4):
            sent = headers_of(b"/\xff\xfecanary")
            with suppress(OSError):
                await asyncio.to_thread(exchange, served.address, sent)
        held.go.set()
        assert await call
        # A connection that was being made to the listener that broke off is lost; the next one is not.
        while not await answered(served):
            pass
    assert "words are withheld" in caplog.text
    assert "canary" not in caplog.text


async def test_health_is_told_for_each_service(served):
    async with patience(), served.channel() as channel:
        check = channel.unary_unary(
            f"/{HEALTH}/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        for service in ("", SERVICE):
            assert (await check(HealthCheckRequest(service=service))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await check(HealthCheckRequest(service="nothing"))
        assert unknown.value.code() is StatusCode.NOT_FOUND


async def test_two_watchers_of_one_service_do_not_disturb_each_other(served, monkeypatch):
    async with patience(), served.channel() as channel:
        watch = channel.unary_stream(
            f"/{HEALTH}/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        first, second = (watch(HealthCheckRequest()) for _ in range(2))
        strange = watch(HealthCheckRequest(service="nothing"))
        assert (await strange.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        for call in (first, second):
            assert (await call.read()).status == SERVING
        first.cancel()
        monkeypatch.setattr("secure_gateway.gateway.Gateway.ready", False)
        assert (await second.read()).status == NOT_SERVING
        ready = await channel.unary_unary(
            f"/{SERVICE}/ServerReady",
            response_deserializer=message_class("ServerReadyResponse").FromString,
        )(b"")
        assert not ready.ready
        monkeypatch.undo()
        assert (await second.read()).status == SERVING
        second.cancel()
