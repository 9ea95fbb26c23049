"""Promise 1: no payload leaves its holder before a decision that names where it may go.

Seen to fail: with `self._decide(exchange)` taken out of `Pipeline.serve` (and the router made to pick
any node) the node is reached by refused requests; with `extra="allow"` on `PlacementQuestion` a
placement accepts a tensor.
"""

import asyncio

import pytest
from grpc import RpcError
from support import call, make_site, publish_linear
from support.grpc import Caller, row
from support.sites import ROW

from bedside.compose import open_gateway
from bedside.listen import listen_tcp, url_of
from bedside.serving import make_grpc, serve_gateway
from policies import Role
from secure_gateway import EmbeddedNode

REFUSED = {
    "German PHI at a US site": ({"Bedside-Jurisdiction": "DE"}, Role.CLINICIAN),
    "a role without right to the model": ({}, Role.BILLING),
    "ETREAT without an emergency": ({"Bedside-Purpose": "ETREAT"}, Role.CLINICIAN),
    "research without authorization": ({"Bedside-Purpose": "HRESCH"}, Role.RESEARCHER),
    "a fact outside its set": ({"Bedside-Data-Class": "public"}, Role.CLINICIAN),
    "an expired token": ({}, None),
}


def over_grpc(address, token, metadata):
    """Say whether a call, and a request of a stream, were answered."""
    with Caller(address, token) as caller:
        answered = caller.infer(metadata=metadata).message is not None
        try:
            (response,) = caller.stream([row()], metadata)
        except RpcError:
            return [answered, False]
        return [answered, bool(response.infer_response.outputs)]


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_payload_reaches_no_node(tmp_path, monkeypatch, case):
    facts, role = REFUSED[case]
    reached = []
    infer, stream = EmbeddedNode.infer, EmbeddedNode.stream

    async def spy(node, model, request, deadline):
        reached.append(model)
        return await infer(node, model, request, deadline)

    async def streamed(node, model, request, deadline):
        reached.append(model)
        async for response in stream(node, model, request, deadline):
            yield response

    monkeypatch.setattr(EmbeddedNode, "infer", spy)
    monkeypatch.setattr(EmbeddedNode, "stream", streamed)
    site = make_site(tmp_path, gateway={"grpc_port": 0})
    publish_linear(site, tmp_path)
    listener = listen_tcp("127.0.0.1", 0)
    stop, ready = asyncio.Event(), asyncio.Event()
    gateway = await open_gateway(site)
    grpc = make_grpc(gateway)
    serving = asyncio.create_task(serve_gateway(gateway, listener, stop, ready.set, grpc=grpc))
    await ready.wait()
    url = f"{url_of(listener)}/v2/models/breast-cancer/infer"
    issuer = site.token_issuer()
    lifetime = 60 if role else -3600
    refused = issuer.issue("someone", [role or Role.CLINICIAN], lifetime_s=lifetime)
    allowed = issuer.issue("dr.adams", [Role.CLINICIAN], lifetime_s=60)
    reply = await asyncio.to_thread(call, "POST", url, token=refused, headers=facts, body=ROW)
    assert reply.status in (400, 401, 403)
    events = f"{url}_stream"
    reply = await asyncio.to_thread(call, "POST", events, token=refused, headers=facts, body=ROW)
    assert reply.status in (400, 401, 403)
    metadata = [(name.lower(), value) for name, value in facts.items()]
    assert await asyncio.to_thread(over_grpc, grpc.address, refused, metadata) == [False, False]
    assert reached == []
    reply = await asyncio.to_thread(call, "POST", url, token=allowed, body=ROW)
    assert reply.status == 200
    assert len(reached) == 1
    assert await asyncio.to_thread(over_grpc, grpc.address, allowed, []) == [True, True]
    assert len(reached) == 3
    stop.set()
    await serving


def test_a_placement_is_asked_for_with_facts_only(gateway):
    facts = {"model": "breast-cancer", "purpose": "TREAT"}
    url = f"{gateway.url}/v1/placements"
    assert call("POST", url, token=gateway.token(), body=facts).status == 200
    for name in ("inputs", "data", "x"):
        reply = call("POST", url, token=gateway.token(), body={**facts, name: [1.0]})
        assert reply.status == 400
        assert reply.json["type"] == "urn:bedside:problem:body-malformed"
