"""Many responses to one request: what is given, what is recorded, what ends the work.

Seen to fail: with the record of the opening made after the first response, with `aclose` leaving out
its note, with the model's place left at the opening instead of the end.
"""

import asyncio
import time
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest
from msgspec.structs import replace
from support import make_site, records_of
from support.models import stepping_model
from support.nodes import NodeProcess

from audit import LogUnavailable
from audit.records import Action, Outcome, Problem
from bedside.compose import open_gateway
from bedside.config import EXAMPLE_ACCESS
from inference_node import InferRequest, NodeSettings, Tensor
from policies import Role
from secure_gateway import NodeEntry
from secure_gateway.admission import AdmissionSettings
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call, Claims

X = np.array([[8, 4, 2]], np.float32)
STEPS = 100_000


def site_of(folder, **settings):
    repository = folder / "repository"
    if not repository.exists():
        stepping_model(repository, steps=STEPS)
    return make_site(
        folder,
        node=NodeSettings(repository=repository),
        models={"halving": EXAMPLE_ACCESS},
        **settings,
    )


@asynccontextmanager
async def opened(site):
    gateway = await open_gateway(site)
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.close()


def request(**parameters):
    tensor = Tensor(name="x", datatype="FP32", shape=(1, 3), array=X)
    return InferRequest(inputs=[tensor], parameters=parameters)


def call(site, role=Role.CLINICIAN, claims=NO_CLAIMS, **changes):
    token = site.token_issuer().issue("dr.adams", [role], lifetime_s=60)
    return Call(
        action=Action.STREAM,
        authorization=f"Bearer {token}".encode(),
        claims=claims,
        started_ns=time.monotonic_ns(),
        model="halving",
        **changes,
    )


async def read(answer, most=STEPS):
    values = []
    async with aclosing(answer.responses) as responses:
        async for response in responses:
            values.append(response.outputs[0].array[0, 0])
            if len(values) == most:
                break
    return values


async def test_every_response_is_given_between_two_records(tmp_path):
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        answer = await gateway.pipeline.stream(call(site), lambda: request(steps=3))
        log = gateway.parts.log
        assert log.size == 1, "the opening is durable before the first response"
        values = await read(answer)
        assert values == [4, 2, 1]
        assert answer.responses.record == "clinic/gateway-1#1"
    opening, end = records_of(site)
    assert (opening.action, opening.outcome, opening.responses) == (Action.STREAM, Outcome.SERVED, None)
    assert (end.action, end.outcome, end.responses) == (Action.STREAM_END, Outcome.SERVED, 3)
    assert opening.id == end.id
    assert opening.placement == end.placement == "node:local"
    assert opening.policies == end.policies == ("hipaa-treatment",)
    assert end.time >= opening.time


async def test_a_model_of_one_response_gives_it(tmp_path):
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        answer = await gateway.pipeline.stream(call(site), lambda: request(steps=1))
        assert await read(answer) == [4]


async def test_who_leaves_ends_the_work_and_that_is_recorded(tmp_path):
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        answer = await gateway.pipeline.stream(call(site), request)
        (node,) = gateway.parts.nodes
        assert node.outstanding == 1
        assert await read(answer, 2) == [4, 2]
        assert node.outstanding == 0
        await answer.responses.aclose()
    assert [(r.action, r.outcome, r.status, r.responses) for r in records_of(site)] == [
        (Action.STREAM, Outcome.SERVED, 200, None),
        (Action.STREAM_END, Outcome.ABANDONED, 499, 2),
    ]


async def test_a_cancelled_reader_ends_the_work_and_that_is_recorded(tmp_path):
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        begun = asyncio.Event()

        async def use():
            answer = await gateway.pipeline.stream(call(site), request)
            async with aclosing(answer.responses) as responses:
                async for _ in responses:
                    begun.set()
                    await asyncio.sleep(0)

        task = asyncio.create_task(use())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gateway.parts.nodes[0].outstanding == 0
    opening, end = records_of(site)
    assert (opening.outcome, end.outcome) == (Outcome.SERVED, Outcome.ABANDONED)


async def test_who_leaves_before_the_first_response_is_recorded_once(tmp_path, monkeypatch):
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        (node,) = gateway.parts.nodes
        asked = asyncio.Event()

        async def never(*_):
            asked.set()
            await asyncio.Event().wait()
            yield

        monkeypatch.setattr(node, "stream", never)
        task = asyncio.create_task(gateway.pipeline.stream(call(site), request))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (record,) = records_of(site)
    assert (record.action, record.outcome) == (Action.STREAM, Outcome.ABANDONED)


REFUSED = {
    "no token": ({"authorization": None}, Problem.TOKEN_MISSING),
    "a role without right": ({"role": Role.BILLING}, Problem.POLICY_REFUSED),
    "German PHI": ({"claims": Claims(jurisdiction="DE")}, Problem.POLICY_REFUSED),
    "a deadline that has passed": ({"deadline": 1.0}, Problem.DEADLINE_EXCEEDED),
    "an unknown model": ({"model": "nothing"}, Problem.MODEL_UNKNOWN),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_stream_is_refused_as_an_inference_is(tmp_path, case):
    changes, problem = dict(REFUSED[case][0]), REFUSED[case][1]
    site = site_of(tmp_path)
    facts = {name: changes.pop(name) for name in ("role", "claims") if name in changes}
    asked = call(site, **facts)
    for name, value in changes.items():
        asked = replace(asked, **{name: value})
    async with opened(site) as gateway:
        answer = await gateway.pipeline.stream(asked, request)
        assert answer.responses is None
        assert answer.exchange.refusal.problem is problem
        assert gateway.parts.nodes[0].outstanding == 0
    (record,) = records_of(site)
    assert (record.action, record.problem) == (Action.STREAM, problem)


async def test_a_stream_holds_its_place_until_it_ends(tmp_path):
    admission = AdmissionSettings(least=1, most=1)
    site = site_of(tmp_path, gateway={"admission": admission})
    async with opened(site) as gateway:
        first = await gateway.pipeline.stream(call(site), request)
        second = await gateway.pipeline.stream(call(site), request)
        assert second.exchange.refusal.problem is Problem.OVERLOADED
        await first.responses.aclose()
        third = await gateway.pipeline.stream(call(site), lambda: request(steps=1))
        assert await read(third) == [4]


async def test_nothing_is_given_when_the_opening_cannot_be_recorded(tmp_path, monkeypatch):
    site = site_of(tmp_path)
    async with opened(site) as gateway:

        def broken(_):
            raise LogUnavailable("no disk")

        with monkeypatch.context() as patch:
            patch.setattr(gateway.parts.log, "append", broken)
            with pytest.raises(LogUnavailable):
                await gateway.pipeline.stream(call(site), request)
        assert gateway.parts.nodes[0].outstanding == 0
    assert records_of(site) == []


async def test_the_end_is_not_told_while_it_cannot_be_recorded(tmp_path, monkeypatch):
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        answer = await gateway.pipeline.stream(call(site), lambda: request(steps=1))
        assert (await anext(answer.responses)).outputs

        def broken(_):
            raise LogUnavailable("no disk")

        with monkeypatch.context() as patch:
            patch.setattr(gateway.parts.log, "append", broken)
            with pytest.raises(LogUnavailable):
                await anext(answer.responses)
        assert gateway.parts.nodes[0].outstanding == 0


async def test_a_node_of_its_own_streams_and_its_end_ends_the_stream(tmp_path):
    site = site_of(tmp_path)
    with NodeProcess(site, tmp_path, "one") as node:
        entry = NodeEntry(id="one", jurisdiction="US-CA", url=node.url)
        site = site_of(tmp_path, gateway={"nodes": [entry]})
        async with opened(site) as gateway:
            whole = await gateway.pipeline.stream(call(site), lambda: request(steps=3))
            assert await read(whole) == [4, 2, 1]
            left = await gateway.pipeline.stream(call(site), request)
            assert await read(left, 1) == [4]
            broken = await gateway.pipeline.stream(call(site), request)
            assert (await anext(broken.responses)).outputs
            node.kill()
            with pytest.raises(Refusal) as caught:
                await read(broken)
            assert caught.value.problem is Problem.EXECUTION_FAILED
            gone = await gateway.pipeline.stream(call(site), request)
            assert gone.exchange.refusal.problem is Problem.NODE_UNREACHABLE
            assert gateway.parts.nodes[0].outstanding == 0
    ends = [r for r in records_of(site) if r.action is Action.STREAM_END]
    assert [(r.outcome, r.problem) for r in ends] == [
        (Outcome.SERVED, None),
        (Outcome.ABANDONED, None),
        (Outcome.FAILED, Problem.EXECUTION_FAILED),
    ]
    assert ends[2].responses >= 1


async def test_a_model_of_many_responses_is_not_asked_for_one(tmp_path):
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        asked = call(site)
        answer = await gateway.pipeline.serve(replace(asked, action=Action.INFER), request)
        assert answer.exchange.refusal.problem is Problem.INPUT_INVALID
