"""The gateway's front door: one ASGI application that sends each path to what serves it."""

import time
from collections.abc import Awaitable

from audit import LogUnavailable, serve_log
from audit.records import Action, Problem
from inference_node import CONTENT_TYPE, exposition
from policies import ApiAction
from secure_gateway import respond
from secure_gateway.asgi import Application, Receive, Scope, Send, send_response
from secure_gateway.channel import POLICY_VIOLATION, TRY_AGAIN_LATER
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.consent.routes import PATH as CONSENTS_PATH
from secure_gateway.control import build_control
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call
from secure_gateway.gateway import Gateway
from secure_gateway.rest import RestApi
from secure_gateway.work.routes import serves_path as is_work

CHANNEL_PATH = "/v1/channel"
METRICS_PATH = "/metrics"


def build_app(gateway: Gateway) -> Application:
    """Return the ASGI application of `gateway`.

    `/v2` is the Open Inference Protocol, `/v1` the control routes and the device channel,
    `/checkpoint` and `/tile/` the transparency log, `/metrics` what Prometheus scrapes.
    """
    rest = RestApi(gateway)
    control = build_control(gateway)
    log = serve_log(gateway.parts.log)

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "websocket":
            return _channel(gateway, scope, receive, send)
        if scope["type"] != "http":
            message = "the server runs this application without lifespan events"
            raise AssertionError(message)
        path: str = scope["path"]
        if path.startswith("/v2/") or path == "/v2":
            return rest(scope, receive, send)
        if path == METRICS_PATH:
            return _metrics(gateway, scope, send)
        if path == "/checkpoint" or path.startswith("/tile/"):
            return log(scope, receive, send)
        if gateway.work_api is not None and is_work(path):
            return gateway.work_api(scope, receive, send)
        if gateway.consent_api is not None and path == CONSENTS_PATH:
            return gateway.consent_api(scope, receive, send)
        if path.startswith("/v1/") or path == "/openapi.json":
            return control(scope, receive, send)
        return _not_found(gateway, scope, send)

    return app


async def _channel(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """Accept a device's channel once it is authenticated, authorized and recorded."""
    await receive()
    call = _call(scope, Action.CONNECT)
    try:
        if scope["path"] != CHANNEL_PATH:
            refusal = Refusal(Problem.NOT_FOUND, f"Devices connect to {CHANNEL_PATH}.")
            answer = await gateway.pipeline.refuse(call, refusal)
        else:
            answer = await gateway.pipeline.authorize(call, ApiAction.CHANNEL_OPEN)
    except LogUnavailable:
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        return
    principal = answer.exchange.principal
    if answer.exchange.refusal is not None or principal is None:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    await send({"type": "websocket.accept"})
    await gateway.hub.serve(principal.id, receive, send)


async def _metrics(gateway: Gateway, scope: Scope, send: Send) -> None:
    """Answer a scrape of those whom policy lets read metrics.

    It is recorded like every request, and answered also while the log takes no records: it holds
    nothing of any request, and says that the log is what fails.
    """
    call = _call(scope, Action.METRICS)
    if scope["method"] != "GET":
        refusal = Refusal(Problem.METHOD_NOT_ALLOWED, "Metrics are read with GET.")
        try:
            await send_response(send, *respond.http(await gateway.pipeline.refuse(call, refusal)))
        except LogUnavailable:
            await send_response(send, *respond.log_unavailable())
        return
    exchange, record = await gateway.pipeline.authorize_monitoring(call, ApiAction.METRICS_READ)
    if exchange.refusal is not None:
        await send_response(send, *respond.refusal(exchange.refusal, record=record))
        return
    headers = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store")]
    await send_response(send, 200, headers, exposition(gateway.collectors))


async def _not_found(gateway: Gateway, scope: Scope, send: Send) -> None:
    refusal = Refusal(
        Problem.NOT_FOUND, "The gateway serves /v2, /v1, /checkpoint, /tile and /metrics."
    )
    try:
        answer = await gateway.pipeline.refuse(_call(scope, Action.INFER), refusal)
    except LogUnavailable:
        await send_response(send, *respond.log_unavailable())
    else:
        await send_response(send, *respond.http(answer))


def _call(scope: Scope, action: Action) -> Call:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return Call(
        action=action,
        authorization=headers.get(b"authorization"),
        claims=NO_CLAIMS,
        started_ns=time.monotonic_ns(),
    )
