"""What several nodes of a site say and do as one: statistics, index, load and unload, configuration.

Seen to fail: with nodes' counts replaced instead of added, with the probe after a change left out, with
the name of a model recorded before any node has it.
"""

import time
from contextlib import ExitStack, asynccontextmanager

import numpy as np
import pytest
from support import linear_model, make_site, records_of
from support.nodes import NodeProcess

from audit.records import Action, Outcome, Problem
from bedside.compose import open_gateway
from bedside.config import EXAMPLE_ACCESS
from inference_node import (
    BatchStatistics,
    Duration,
    InferRequest,
    InferStatistics,
    ModelStatistics,
    NodeSettings,
    RepositoryEntry,
    Tensor,
)
from policies import Role
from secure_gateway import NodeEntry
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.exchange import Call
from secure_gateway.merge import DIFFERS, merge_indexes, merge_statistics

X = np.ones((2, 3), np.float32)


def statistics(version="1", last=0, rows=0, size=1):
    took = Duration(rows, rows * 10)
    return ModelStatistics(
        name="m",
        version=version,
        last_inference=last,
        inference_count=rows,
        execution_count=rows,
        inference_stats=InferStatistics(success=took, queue=took),
        batch_stats=(BatchStatistics(batch_size=size, compute_infer=took),),
    )


def test_counts_are_added_by_model_version_and_batch_size():
    merged = merge_statistics(
        [[statistics(last=5, rows=2), statistics("10")], [statistics(last=3, rows=4, size=8)]]
    )
    assert [(m.version, m.last_inference, m.inference_count) for m in merged] == [
        ("1", 5, 6), ("10", 0, 0)]  # fmt: skip
    assert merged[0].inference_stats.success == Duration(6, 60)
    assert [(b.batch_size, b.compute_infer) for b in merged[0].batch_stats] == [
        (1, Duration(2, 20)), (8, Duration(4, 40))]  # fmt: skip


def entry(state, digest="", version="1"):
    return RepositoryEntry(name="m", version=version, state=state, digest=digest)


def test_a_version_is_ready_if_some_node_is_and_says_when_nodes_differ():
    def merged(*indexes, ready=False):
        return [(e.version, e.state, e.digest, e.reason) for e in merge_indexes(indexes, ready=ready)]

    one, other = entry("READY", "aa"), entry("READY", "bb")
    gone, two = entry("UNAVAILABLE"), entry("UNAVAILABLE", version="2")
    assert merged([one], [gone]) == merged([gone], [one]) == [("1", "READY", "aa", "")]
    assert merged([one], [one]) == [("1", "READY", "aa", "")]
    assert merged([one], [other]) == [("1", "READY", "", DIFFERS)]
    assert merged([one, two], ready=True) == merged([one])
    assert [row[0] for row in merged([two], [one])] == ["1", "2"]


def site_of(folder, **settings):
    return make_site(
        folder,
        node=NodeSettings(repository=folder / "repository"),
        models={"linear": EXAMPLE_ACCESS},
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


def call(site, action, model="linear", role=Role.OPERATOR, version=None):
    token = site.token_issuer().issue("it.ward", [role], lifetime_s=60)
    return Call(
        action=action,
        authorization=f"Bearer {token}".encode(),
        claims=NO_CLAIMS,
        started_ns=time.monotonic_ns(),
        model=model,
        version=version,
    )


def rows():
    return InferRequest(inputs=[Tensor(name="x", datatype="FP32", shape=X.shape, array=X)])


async def test_one_node(tmp_path):
    linear_model(tmp_path / "repository" / "linear" / "1" / "model.onnx")
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        ask, clinician = gateway.operations, Role.CLINICIAN
        assert (await ask.ready(call(site, Action.MODELS, role=clinician))).value.version == "1"
        assert (await ask.metadata(call(site, Action.MODELS))).value.inputs[0].shape == (-1, 3)
        config = (await ask.config(call(site, Action.MODELS, role=clinician))).value
        assert (config["name"], config["input"][0]["data_type"]) == ("linear", "TYPE_FP32")
        await gateway.pipeline.serve(call(site, Action.INFER, role=clinician), rows)
        for model, version in ((None, None), ("linear", None), ("linear", "1")):
            (counted,) = (
                await ask.statistics(call(site, Action.STATISTICS, model, version=version))
            ).value
            assert (counted.name, counted.version, counted.inference_count) == ("linear", "1", 2)
        (only,) = (await ask.index(call(site, Action.INDEX, None))).value
        assert (only.name, only.version, only.state, len(only.digest)) == ("linear", "1", "READY", 64)

        assert (await ask.unload(call(site, Action.UNLOAD))).value == ("node:local",)
        unknown = await gateway.pipeline.serve(call(site, Action.INFER, role=clinician), rows)
        assert unknown.exchange.refusal.problem is Problem.MODEL_UNKNOWN
        assert (await ask.index(call(site, Action.INDEX, None), ready=True)).value == ()
        (only,) = (await ask.index(call(site, Action.INDEX, None))).value
        assert (only.state, only.reason) == ("UNAVAILABLE", "unloaded")
        assert (await ask.ready(call(site, Action.MODELS))).value is None

        linear_model(tmp_path / "repository" / "linear" / "2" / "model.onnx")
        assert (await ask.load(call(site, Action.LOAD))).value == ("node:local",)
        assert (await ask.ready(call(site, Action.MODELS))).value.version == "2"
    records = records_of(site)
    changes = [r for r in records if r.action in (Action.LOAD, Action.UNLOAD)]
    assert [(r.action, r.principal, r.model, r.changed, r.policies) for r in changes] == [
        (action, "it.ward", "linear", ("node:local",), ("base-api-operators",))
        for action in (Action.UNLOAD, Action.LOAD)
    ]
    assert {r.action for r in records} > {Action.MODELS, Action.INDEX, Action.STATISTICS}


@pytest.mark.parametrize("role", set(Role) - {Role.OPERATOR})
async def test_only_operators_change_what_serves(tmp_path, role):
    linear_model(tmp_path / "repository" / "linear" / "1" / "model.onnx")
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        for change, action in (
            (gateway.operations.unload, Action.UNLOAD),
            (gateway.operations.load, Action.LOAD),
        ):
            done = await change(call(site, action, role=role))
            assert done.value is None
            assert done.answer.exchange.refusal.problem is Problem.POLICY_REFUSED
        assert (await gateway.operations.ready(call(site, Action.MODELS))).value is not None
    assert [(r.action, r.outcome, r.changed) for r in records_of(site)][:2] == [
        (Action.UNLOAD, Outcome.REFUSED, ()),
        (Action.LOAD, Outcome.REFUSED, ()),
    ]


async def test_what_no_node_has_is_unknown_and_its_name_recorded_nowhere(tmp_path):
    linear_model(tmp_path / "repository" / "linear" / "1" / "model.onnx")
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        ask = gateway.operations
        for model in ("canary", "../linear", "", "x" * 200):
            for change, action in ((ask.load, Action.LOAD), (ask.unload, Action.UNLOAD)):
                done = await change(call(site, action, model))
                assert done.answer.exchange.refusal.problem is Problem.MODEL_UNKNOWN
        counted = await ask.statistics(call(site, Action.STATISTICS, "canary"))
        assert counted.answer.exchange.refusal.problem is Problem.MODEL_UNKNOWN
    assert {record.model for record in records_of(site)} == {None}


async def test_a_model_that_cannot_be_loaded_is_recorded_and_says_why(tmp_path):
    linear_model(tmp_path / "repository" / "linear" / "1" / "model.onnx")
    broken = tmp_path / "repository" / "broken" / "1"
    site = site_of(tmp_path)
    async with opened(site) as gateway:
        broken.mkdir(parents=True)
        (broken / "model.onnx").write_bytes(b"no model")
        done = await gateway.operations.load(call(site, Action.LOAD, "broken"))
        refusal = done.answer.exchange.refusal
        assert refusal.problem is Problem.MODEL_NOT_READY
        assert "node:local: version 1: broken" in refusal.detail
        assert (await gateway.operations.ready(call(site, Action.MODELS))).value is not None
    record = records_of(site)[0]
    assert (record.action, record.model, record.changed) == (Action.LOAD, "broken", ())


async def test_several_nodes_answer_and_change_as_one(tmp_path):
    linear_model(tmp_path / "repository" / "linear" / "1" / "model.onnx")
    with ExitStack() as stack:
        site = site_of(tmp_path)
        nodes = [stack.enter_context(NodeProcess(site, tmp_path, name)) for name in ("one", "two")]
        entries = [NodeEntry(id=node.name, jurisdiction="US-CA", url=node.url) for node in nodes]
        site = site_of(tmp_path, gateway={"nodes": entries})
        async with opened(site) as gateway:
            ask = gateway.operations
            for _ in range(4):
                await gateway.pipeline.serve(call(site, Action.INFER, role=Role.CLINICIAN), rows)
            assert [node.chosen > 0 for node in gateway.parts.nodes] == [True, True]
            (counted,) = (await ask.statistics(call(site, Action.STATISTICS, None))).value
            assert counted.inference_count == 8
            assert counted.inference_stats.success.count == 4
            assert len((await ask.index(call(site, Action.INDEX, None))).value) == 1
            assert (await ask.config(call(site, Action.MODELS))).value["name"] == "linear"
            both = ("node:one", "node:two")
            assert (await ask.unload(call(site, Action.UNLOAD))).value == both
            assert (await ask.load(call(site, Action.LOAD))).value == both
            nodes[1].kill()
            partly = (await ask.load(call(site, Action.LOAD))).answer.exchange
            assert partly.refusal.problem is Problem.NODE_UNREACHABLE
            assert "It was done on node:one." in partly.refusal.detail
            assert (await ask.statistics(call(site, Action.STATISTICS))).value[0].version == "1"
            nodes[0].kill()
            for done in (
                await ask.statistics(call(site, Action.STATISTICS)),
                await ask.index(call(site, Action.INDEX, None)),
                await ask.metadata(call(site, Action.MODELS)),
            ):
                assert done.answer.exchange.refusal.problem is Problem.NODE_UNREACHABLE
    partly = [r for r in records_of(site) if r.action is Action.LOAD][-1]
    assert (partly.outcome, partly.model, partly.changed) == (Outcome.FAILED, "linear", ("node:one",))
