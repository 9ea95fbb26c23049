"""Promise 1 at every door: each route and method is asked of Cedar, or stands here with its reason.

Seen to fail: with `_may_send` taken from the receipts' route, `POST /v1/receipts` is named; with the
engine not asked in `Decider.authorize`, all but inference are.
"""

import asyncio
import uuid
from contextlib import asynccontextmanager

import pytest
from grpc import StatusCode
from support import call, make_site, publish_linear
from support.grpc import Caller, row
from support.sites import ROW

from bedside.compose import open_gateway
from bedside.listen import listen_tcp, url_of
from bedside.serving import make_grpc, serve_gateway
from inference_node.schema import message_class, method_names
from policies import Engine, Role

PROBES = "liveness, readiness and the server's own name, for probes: nothing of any model or request"
LOG = "the log as tlog tools read it, for anybody who verifies: records hold no content"
OPEN = {
    ("GET", "/openapi.json"): "what the routes take",
    ("GET", "/v2"): PROBES,
    ("GET", "/v2/health/live"): PROBES,
    ("GET", "/v2/health/ready"): PROBES,
    ("GET", "/checkpoint"): LOG,
    ("GET", "/tile/{level}/{number}"): LOG,
    ("GET", "/tile/entries/{number}"): LOG,
}
# The document does not name itself.
BESIDE = {("GET", "/openapi.json")}
OPEN_METHODS = {"ServerLive": PROBES, "ServerReady": PROBES, "ServerMetadata": PROBES}
CONSENT = {"subject": "mrn-1", "purposes": ["TREAT"]}
BODIES = {
    "/v1/placements": {"model": "breast-cancer"},
    "/v1/receipts": {
        "id": str(uuid.uuid4()),
        "token": "t",
        "model_digest": "0" * 64,
        "rows": 1,
        "duration_us": 1,
        "outcome": "served",
    },
    "/v1/consents": CONSENT,
}


@pytest.fixture
def asked(monkeypatch):
    """What Cedar was asked: API actions, and decisions of where something may run."""
    questions = []
    authorize, decide = Engine.authorize, Engine.decide

    def authorizing(engine, caller, action, **about):
        questions.append(action.value)
        return authorize(engine, caller, action, **about)

    def deciding(engine, facts, candidates):
        questions.append("place")
        return decide(engine, facts, candidates)

    monkeypatch.setattr(Engine, "authorize", authorizing)
    monkeypatch.setattr(Engine, "decide", deciding)
    return questions


@asynccontextmanager
async def serving(folder):
    site = make_site(folder, gateway={"grpc_port": 0, "consent": {"registry": True}})
    publish_linear(site, folder)
    listener = listen_tcp("127.0.0.1", 0)
    stop, ready = asyncio.Event(), asyncio.Event()
    gateway = await open_gateway(site)
    grpc = make_grpc(gateway)
    running = asyncio.create_task(serve_gateway(gateway, listener, stop, ready.set, grpc=grpc))
    await ready.wait()
    token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
    yield url_of(listener), grpc.address, token
    stop.set()
    await running


def named(path):
    known = {"model": "breast-cancer", "version": "1", "level": "0", "number": "000"}
    parts = (
        known.get(part[1:-1], str(uuid.uuid4())) if part.startswith("{") else part
        for part in path.split("/")
    )
    return "/".join(parts)


async def test_every_route_over_http_asks_cedar_or_is_open_for_a_reason(tmp_path, asked):
    async with serving(tmp_path) as (url, _, token):
        document = (await asyncio.to_thread(call, "GET", f"{url}/openapi.json")).json
        routes = {
            (method.upper(), path)
            for path, methods in document["paths"].items()
            for method in methods
            if method in ("get", "post", "put", "delete", "patch")
        }
        assert len(routes) > 20
        unasked = set()
        # What was submitted runs on, and asks where, while later routes are walked: it goes last.
        for method, path in sorted(
            routes | BESIDE, key=lambda route: (route[1].endswith("/work"), route)
        ):
            asked.clear()
            body = BODIES.get(path, ROW) if method in ("POST", "PUT") else None
            await asyncio.to_thread(call, method, url + named(path), token=token, body=body)
            if not asked:
                unasked.add((method, path))
    assert {*OPEN} <= routes | BESIDE
    assert unasked == set(OPEN)


async def test_every_method_over_grpc_asks_cedar_or_is_open_for_a_reason(tmp_path, asked):
    async with serving(tmp_path) as (_, address, token):
        unasked = set()
        with Caller(address, token) as caller:
            for name in method_names():
                asked.clear()
                if name == "ModelStreamInfer":
                    await asyncio.to_thread(caller.stream, [row()])
                else:
                    message = row() if name == "ModelInfer" else message_class(f"{name}Request")()
                    for field in ("name", "model_name"):
                        if hasattr(message, field):
                            setattr(message, field, "breast-cancer")
                    answer = await asyncio.to_thread(caller.call, name, message)
                    if answer.code is StatusCode.UNIMPLEMENTED:
                        continue
                if not asked:
                    unasked.add(name)
    assert unasked == set(OPEN_METHODS)
