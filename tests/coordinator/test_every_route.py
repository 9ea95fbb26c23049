"""Every route of the coordinator is asked of Cedar, or stands here with the reason why it is open.

Seen to fail: with `allow(...)` taken from the route of the registry of jobs, that route is named.
"""

import re

import pytest
from starlette.routing import Mount, Route

from policies import Engine, Role

OPEN = {
    ("POST", "/v1/devices"): "a device that enrols has no token yet: its one-time code says who it is",
    ("GET", "/v1/registry"): "signed, of pseudonyms and public keys; gateways poll it",
    ("GET", "/v1/policy/bundle"): "signed; gateways and devices verify it, and poll it",
    ("GET", "/v1/policy/shadow"): "likewise",
    ("GET", "/healthz"): "whether requests can be served, for probes",
    ("GET", "/openapi.json"): "what the routes take",
}
# The log, as tlog tools read it: records hold no content.
MOUNTED = {"/log"}
BODIES = {
    "/v1/devices/codes": {"jurisdiction": "US"},
    "/v1/federated/jobs": {"model": "sepsis"},
}


def routes_of(app):
    found = set()
    for route in app.routes:
        if isinstance(route, Mount):
            assert route.path in MOUNTED, route.path
        elif isinstance(route, Route):
            found |= {(method, route.path) for method in route.methods - {"HEAD"}}
    return found


@pytest.fixture
def asked(monkeypatch):
    """Every action that Cedar was asked about."""
    actions = []
    authorize = Engine.authorize

    def recording(engine, caller, action, **about):
        actions.append(action)
        return authorize(engine, caller, action, **about)

    monkeypatch.setattr(Engine, "authorize", recording)
    return actions


async def test_every_route_asks_cedar_or_is_open_for_a_reason(api, asked):
    routes = routes_of(api.client._transport.app)
    assert len(routes) > 20
    assert set(OPEN) <= routes
    unasked = set()
    for method, path in sorted(routes):
        asked.clear()
        body = BODIES.get(path, {}) if method in ("POST", "PUT") else None
        named = re.sub(r"\{[a-z_]+(:path)?\}", "1", path)
        answer = await api.call(method, named, Role.BILLING, body)
        if not asked:
            unasked.add((method, path))
        elif (method, path) not in OPEN:
            # Nobody in billing may do any of it, and default deny is what says so.
            assert answer.status_code == 403, (method, path)
    assert unasked == set(OPEN)
