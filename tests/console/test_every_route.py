"""Every page and form of the console is refused to whom no policy lets in, or is open for a reason.

Seen to fail: with `None` in place of `ApiAction.JOBS_READ` for the page of jobs, that page is named.
"""

import re
from unittest.mock import MagicMock

from starlette.routing import Route
from support.officers import CLINICIAN

from console.app import build_app

SESSION = "signing in and out, and one's own account: whoever has one"
OPEN = {
    ("GET", "/sign-in"): SESSION,
    ("POST", "/sign-in"): SESSION,
    ("POST", "/sign-out"): SESSION,
    ("POST", "/sign-out/everywhere"): SESSION,
    ("GET", "/account"): SESSION,
    ("POST", "/account"): SESSION,
    ("GET", "/static/{name}"): "style sheets and scripts",
    ("GET", "/healthz"): "whether pages can be served, for probes",
}


def routes():
    # Only its table of routes is wanted, which is made without looking at any part.
    shield = build_app(MagicMock(origins=frozenset(), secure=False, site="clinic"))
    (app,) = (part for part in vars(shield).values() if hasattr(part, "routes"))
    for route in app.routes:
        assert isinstance(route, Route)
        yield from ((method, route.path) for method in route.methods - {"HEAD"})


def test_every_route_asks_cedar_or_is_open_for_a_reason(console):
    table = set(routes())
    assert set(OPEN) <= table
    assert len(table) > 20
    let_in = set()
    for method, path in sorted(table - {("POST", "/sign-in"), ("POST", "/sign-out")}):
        visitor = console.officer(CLINICIAN)
        named = re.sub(r"\{[a-z]+(:path)?\}", "1", path)
        answer = visitor.get(named) if method == "GET" else visitor.post(named)
        if answer.status_code != 403:
            let_in.add((method, path))
        nobody = console.visitor().http.request(method, named, headers={"Origin": console.url})
        assert (method, path) in OPEN or nobody.status_code == 303, (method, path)
    assert let_in == set(OPEN) - {("POST", "/sign-in"), ("POST", "/sign-out")}
