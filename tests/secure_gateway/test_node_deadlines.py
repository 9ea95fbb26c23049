"""How long a caller waits reaches the batcher of a node elsewhere, whatever road the request takes.

Seen to fail: with `Bedside-Timeout` left out of what `NodeClient` sends, none of them has a deadline.
"""

import asyncio
import contextlib
import time

import grpc
import pytest
from support import call, make_site, publish_linear
from support.grpc import bearer, row
from support.sites import ROW, free_port

from bedside.compose import open_gateway
from bedside.listen import listen_tcp, listen_unix, url_of
from bedside.serving import make_grpc, serve_gateway, serve_node
from inference_node import Node
from inference_node.schema import SERVICE
from policies import Role
from secure_gateway import NodeEntry

NODE_TIMEOUT_S = 25.0
TIMEOUT_S = 15.0
SLACK_S = 0.001  # a node is told in whole milliseconds, rounded up
GRPC_SLACK_S = 0.1  # gRPC's core sends a timeout of 10 to 100 s in tenths of a second, rounded up


@pytest.fixture(params=["tcp", "unix"])
async def served(request, tmp_path, monkeypatch):
    """A gateway with one node of its own socket, both in this process, and the deadlines it ran by."""
    deadlines = []
    infer = Node.infer

    async def seen(node, name, version, request, deadline=None, **more):
        deadlines.append(deadline)
        return await infer(node, name, version, request, deadline, **more)

    monkeypatch.setattr(Node, "infer", seen)
    if request.param == "tcp":
        listener = listen_tcp("127.0.0.1", 0)
        url = url_of(listener)
    else:
        listener = listen_unix(tmp_path / "node.sock")
        url = f"unix:{tmp_path / 'node.sock'}"
    nodes = [NodeEntry(id="far", jurisdiction="US-CA", url=url)]
    gateway = {"nodes": nodes, "grpc_port": free_port(), "node_timeout_s": NODE_TIMEOUT_S}
    site = make_site(tmp_path, gateway=gateway)
    publish_linear(site, tmp_path)
    node = Node(site.node_settings())
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            running(lambda stop, ready: serve_node(node, listener, stop, ready, secret=None))
        )
        opened = await open_gateway(site)
        server = make_grpc(opened)
        rest = listen_tcp("127.0.0.1", 0)
        await stack.enter_async_context(
            running(lambda stop, ready: serve_gateway(opened, rest, stop, ready, grpc=server))
        )
        token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
        yield url_of(rest), server.address, token, deadlines


@contextlib.asynccontextmanager
async def running(serve):
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(stop, ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({serving, waiting}, return_when="FIRST_COMPLETED")
    try:
        yield
    finally:
        waiting.cancel()
        stop.set()
        await serving


async def over_rest(served, path, timeout_s):
    url, _, token, _ = served
    headers = {} if timeout_s is None else {"Bedside-Timeout": str(int(timeout_s * 1000))}
    url = f"{url}/v2/models/breast-cancer/{path}"
    reply = await asyncio.to_thread(call, "POST", url, token=token, headers=headers, body=ROW)
    assert reply.status == 200, reply.body


async def over_grpc(served, timeout_s):
    _, address, token, _ = served
    async with grpc.aio.insecure_channel(address) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        await infer(row().SerializeToString(), metadata=(bearer(token),), timeout=timeout_s)


ROADS = {
    "rest": lambda served, timeout_s: over_rest(served, "infer", timeout_s),
    "events": lambda served, timeout_s: over_rest(served, "infer_stream", timeout_s),
    "grpc": over_grpc,
}


@pytest.mark.parametrize("road", ROADS)
async def test_a_callers_deadline_is_the_nodes(served, road):
    began = time.monotonic()
    await ROADS[road](served, TIMEOUT_S)
    (deadline,) = served[-1]
    slack_s = SLACK_S + (GRPC_SLACK_S if road == "grpc" else 0)
    assert began < deadline <= time.monotonic() + TIMEOUT_S + slack_s


async def test_without_one_a_node_gets_the_time_that_the_site_gives_it(served):
    began = time.monotonic()
    await over_rest(served, "infer", None)
    (deadline,) = served[-1]
    assert began + NODE_TIMEOUT_S <= deadline <= time.monotonic() + NODE_TIMEOUT_S + SLACK_S
