"""Schemathesis over the coordinator's own OpenAPI document, asked as every role and as nobody.

Seen to fail: with a refusal that is no problem document, with `DESCRIBED` left out, and with a task
left behind by every request.
"""

import asyncio
from collections import Counter

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from support.asgi import on_a_port

from coordinator.app import build_app
from policies import Role

CHECKS = (not_a_server_error, response_schema_conformance, status_code_conformance)
EXAMPLES = 2
LOOKS = 500


@pytest.fixture
async def served(api):
    """The URL of the coordinator's API on a real server, beside the tests' own event loop."""
    app = build_app(api.parts)
    async with on_a_port(app) as port:
        yield app, f"http://127.0.0.1:{port}"


def fuzz(operation, mode, callers, asked):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        for headers in callers:
            answer = case.call(headers=headers, timeout=60)
            case.validate_response(answer, checks=CHECKS)
            asked[answer.status_code] += 1

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE


async def test_every_route_does_what_its_description_says(api, served):
    _, url = served
    callers = [{}] + [
        {"Authorization": f"Bearer {api.issuer.issue(role.value, [role], lifetime_s=3600)}"}
        for role in Role
    ]
    asked = Counter()

    def fuzz_all():
        for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
            operation = found.ok()
            takes_something = operation.body or operation.path_parameters or operation.query
            for mode in GenerationMode if takes_something else (GenerationMode.POSITIVE,):
                fuzz(operation, mode, callers, asked)

    held = len(asyncio.all_tasks())
    await asyncio.to_thread(fuzz_all)
    assert {200, 400, 401, 403, 404} <= set(asked), asked
    assert sum(asked.values()) > 300
    for _ in range(LOOKS):
        assert (await api.call("GET", "/healthz", None)).json()["ready"] is True
        # Connections that were just closed are let go of within a turn of the loop.
        if len(asyncio.all_tasks()) <= held + 1:
            break
    # One begins when it is first needed.
    assert len(asyncio.all_tasks()) <= held + 1


async def test_every_route_is_described(api, served):
    app, _ = served
    document = (await api.call("GET", "/openapi.json", None)).json()
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert routes == described
    assert len(routes) > 20
    for methods in document["paths"].values():
        for operation in methods.values():
            assert {"4XX", "503"} <= set(operation["responses"])
            assert operation["summary"]
