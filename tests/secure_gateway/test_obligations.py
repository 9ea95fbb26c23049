"""Each obligation, written into a policy that permits, and what a live gateway then does.

Seen to fail, each by itself: without `Fulfiller.prepare` in the pipeline what cannot be met is served;
without `Fulfiller.apply` all outputs leave, with all their digits; without `no_cache` in
`cache.permission.cacheable` the second answer comes from the cache.
"""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import call, linear_model, make_site, publish_linear, records_of
from support.obliged import FACTS, obliged, served

from audit.records import Problem
from bedside.config import ModelEntry, PolicyEntry
from bedside.site import Site
from inference_node import Device, NodeSettings
from policies import Purpose, Role

PAYMENT = {"Bedside-Data-Class": "limited", "Bedside-Purpose": "HPAYMT"}


@asynccontextmanager
async def serving(tmp_path, obligation, **settings):
    """Serve models under an obligation; yield what asks one of them for an answer, and the site."""
    site = obliged(make_site(tmp_path, **settings).config, obligation, tmp_path / "packs")
    if "node" not in settings:
        publish_linear(site, tmp_path)
    token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=60)
    async with served(site) as url:

        async def ask(model="breast-cancer", **more):
            tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, 0.3]}
            return await asyncio.to_thread(
                call,
                "POST",
                f"{url}/v2/models/{model}/infer",
                token=token,
                headers=FACTS,
                body={"inputs": [tensor], **more},
            )

        yield ask, site


@pytest.mark.parametrize("obligation", ["seal_payload", "two_person_review", "notify"])
async def test_what_cannot_be_met_is_refused_and_recorded(tmp_path, obligation):
    async with serving(tmp_path, obligation) as (ask, site):
        reply = await ask()
        assert reply.status == 403
        assert reply.json["type"] == "urn:bedside:problem:obligation-unmet"
        assert obligation in reply.json["detail"]
    (record,) = records_of(site)
    assert record.problem is Problem.OBLIGATION_UNMET
    assert record.obligations == (obligation,)


async def test_numbers_leave_rounded(tmp_path):
    async with serving(tmp_path, "round(2); retain(3650)") as (ask, site):
        reply = await ask()
        assert reply.status == 200
        values = np.array(reply.json["outputs"][0]["data"])
        assert np.abs(values - values.round(2)).max() < 1e-7
        weights = linear_model(tmp_path / "again.onnx")
        exact = np.exp(np.array([0.1, 0.2, 0.3], np.float32) @ weights)
        exact = exact / exact.sum()
        assert np.allclose(values, exact, atol=0.005)
        assert not np.allclose(values, exact, atol=1e-6)
        classified = await ask(outputs=[{"name": "y", "parameters": {"classification": 1}}])
        assert classified.json["type"] == "urn:bedside:problem:obligation-unmet"
    served, refused = records_of(site)
    assert served.obligations == ("retain(3650)", "round(2)")
    assert refused.problem is Problem.OBLIGATION_UNMET


def two_outputs(folder, *names):
    """Write identity models that give their input twice, under two names."""

    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3])

    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("risk", "embedding")]
    graph = helper.make_graph(nodes, "two", [value("x")], [value("risk"), value("embedding")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    for name in names:
        (folder / name / "1").mkdir(parents=True)
        onnx.save(model, str(folder / name / "1" / "model.onnx"))
    return NodeSettings(repository=folder, device=Device.CPU)


async def test_only_the_named_outputs_leave(tmp_path):
    node = two_outputs(tmp_path / "models", "two")
    async with serving(tmp_path, "outputs(risk)", node=node) as (ask, _):
        for asked in ({}, {"outputs": [{"name": "risk"}, {"name": "embedding"}]}):
            reply = await ask("two", **asked)
            assert reply.status == 200
            assert [output["name"] for output in reply.json["outputs"]] == ["risk"]
            assert "embedding" not in reply.body.decode()
        reply = await ask("two", outputs=[{"name": "embedding"}])
        assert reply.status == 403
        assert reply.json["type"] == "urn:bedside:problem:obligation-unmet"


@pytest.mark.parametrize(("obligation", "kept"), [("no_cache", False), ("retain(1)", True)])
async def test_what_policy_bars_is_not_cached(tmp_path, obligation, kept):
    async with serving(tmp_path, obligation, gateway={"cache": {"enabled": True}}) as (ask, _):
        answers = [(await ask()).json["parameters"] for _ in range(2)]
        assert ["bedside_from_cache" in about for about in answers] == [False, kept]


async def test_billing_gets_the_outputs_that_its_site_named_rounded_and_nothing_where_it_named_none(
    tmp_path,
):
    access = ModelEntry(roles=(Role.BILLING,), purposes=(Purpose.HPAYMT,))
    models = {"two": access.model_copy(update={"necessary_outputs": ("risk",)}), "unnamed": access}
    node = two_outputs(tmp_path / "models", *models)
    config = make_site(tmp_path, node=node).config
    policy = PolicyEntry(packs=("base", "hipaa", "residency"))
    site = Site(config.model_copy(update={"policy": policy, "models": models}))
    token = site.token_issuer().issue("p.okafor", [Role.BILLING], lifetime_s=60)
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.123, 0.2, 0.3]}

    async with served(site) as url:

        async def ask(path, body):
            return await asyncio.to_thread(
                call, "POST", f"{url}{path}", token=token, headers=PAYMENT, body=body
            )

        reply = await ask("/v2/models/two/infer", {"inputs": [tensor]})
        assert reply.status == 200
        (output,) = reply.json["outputs"]
        assert output["name"] == "risk"
        assert np.allclose(output["data"], [0.12, 0.2, 0.3], atol=1e-7)
        for path, body in (
            ("/v2/models/unnamed/infer", {"inputs": [tensor]}),
            ("/v1/placements", {"model": "unnamed", "data_class": "limited", "purpose": "HPAYMT"}),
        ):
            reply = await ask(path, body)
            assert reply.status == 403
            assert reply.json["type"] == "urn:bedside:problem:obligation-unmet"
            assert "named no outputs of this model" in reply.json["detail"]
    served_, *refused = records_of(site)
    assert served_.obligations == ("outputs(risk)", "round(2)")
    assert [record.obligations for record in refused] == [("necessary_outputs", "round(2)")] * 2
