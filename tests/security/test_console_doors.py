"""Who gets through which door of the console: every route, asked by every role and by nobody; and TLS.

Seen to fail: with a route's need left out, with `Web._refused` letting everybody through, with the
cookie's prefix or its `Secure` left out, without HSTS, and with plain addresses among the origins.
"""

import asyncio
import socket
import ssl
from unittest.mock import MagicMock

import httpx
import pytest
from support.certificates import Authority
from support.officers import OFFICER, PASSWORD, ConsoleProcess, Visitor, fill, hospital

from console import Accounts, Store, database_of
from console.routes.emergencies import emergency_routes
from console.routes.models import model_routes
from console.routes.overview import overview_routes
from console.routes.policy import policy_routes
from console.routes.records import record_routes
from console.routes.reports import report_routes
from console.routes.sign_in import sign_in_routes
from policies import ApiAction, Caller, Engine, Role

PUBLIC, SIGNED_IN = "public", "signed in"
# What each door needs. A route that is not here fails the test, and so does one that is no more.
DOORS = {
    ("GET", "/sign-in"): PUBLIC,
    ("POST", "/sign-in"): PUBLIC,
    ("POST", "/sign-out"): SIGNED_IN,
    ("POST", "/sign-out/everywhere"): SIGNED_IN,
    ("GET", "/account"): SIGNED_IN,
    ("POST", "/account"): SIGNED_IN,
    # It asks for itself, and leads whoever may not see it to what they may.
    ("GET", "/"): SIGNED_IN,
    ("GET", "/search"): ApiAction.AUDIT_READ,
    ("POST", "/search/person"): ApiAction.AUDIT_READ,
    ("POST", "/views"): ApiAction.AUDIT_READ,
    ("POST", "/views/remove"): ApiAction.AUDIT_READ,
    ("GET", "/subjects/{pseudonym}"): ApiAction.AUDIT_READ,
    ("GET", "/records/{origin:path}/{position}"): ApiAction.AUDIT_READ,
    ("GET", "/emergencies"): ApiAction.AUDIT_REVIEW,
    ("POST", "/emergencies"): ApiAction.AUDIT_REVIEW,
    ("GET", "/reports"): ApiAction.AUDIT_REPORT,
    ("POST", "/reports"): ApiAction.AUDIT_REPORT,
    ("GET", "/reports/{id}/{form}"): ApiAction.AUDIT_REPORT,
    ("GET", "/policy"): ApiAction.POLICY_READ,
    ("POST", "/policy/diff"): ApiAction.POLICY_READ,
    ("POST", "/policy/replay"): ApiAction.POLICY_REPLAY,
    ("GET", "/policy/questions/{id}"): ApiAction.POLICY_READ,
    ("GET", "/models"): ApiAction.RELEASES_READ,
    ("GET", "/jobs"): ApiAction.JOBS_READ,
}
FILLED = {
    "{pseudonym}": "ab" * 32,
    "{origin:path}": "st-anna/gateway-1",
    "{position}": "0",
    "{id}": "ab" * 16,
    "{form}": "zip",
}


def doors():
    web = MagicMock()
    groups = (
        sign_in_routes, overview_routes, record_routes, emergency_routes, report_routes, policy_routes,
        model_routes,
    )  # fmt: skip
    routes = [route for group in groups for route in group(web)]
    return {(method, route.path) for route in routes for method in route.methods - {"HEAD"}}


def filled(path):
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


def opens(engine, role, need):
    caller = Caller(roles=frozenset({role}), site="st-anna", organisation="st-anna")
    return engine.authorize(caller, need).allowed


def name_of(role):
    return f"has.{role.value}"


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    """A console with an account for each role."""
    folder = tmp_path_factory.mktemp("doors")
    site = hospital(folder)
    fill(site, 20)

    async def add():
        store = await Store.open(database_of(site.data / "console"))
        for role in Role:
            await Accounts(store).add(name_of(role), [role], PASSWORD)
        await store.close()

    asyncio.run(add())
    with ConsoleProcess(site, folder) as running:
        yield running


def test_every_door_is_known():
    assert doors() == set(DOORS)


def test_nobody_comes_in_unasked(console):
    visitor = console.visitor()
    for (method, path), need in DOORS.items():
        if need is PUBLIC:
            continue
        answer = visitor.get(filled(path)) if method == "GET" else visitor.submit(filled(path), {})
        assert answer.status_code == 303, (method, path)
        assert answer.headers["location"].startswith("/sign-in"), (method, path)


@pytest.mark.parametrize("role", list(Role))
def test_each_role_gets_through_the_doors_that_policy_opens_to_it_and_no_other(console, role):
    engine = Engine(console.site.bundle())
    visitor = console.officer(name_of(role))
    for (method, path), need in DOORS.items():
        if need in (PUBLIC, SIGNED_IN):
            continue
        answer = visitor.get(filled(path)) if method == "GET" else visitor.post(filled(path))
        allowed = opens(engine, role, need)
        assert (answer.status_code == 403) is not allowed, (method, path, answer.status_code)
        assert answer.headers["cache-control"] == "no-store", (method, path)
    menu = visitor.get("/account").text
    for (method, path), need in DOORS.items():
        if method == "GET" and need not in (PUBLIC, SIGNED_IN) and "{" not in path:
            shown = f'<li><a href="{path}"' in menu
            assert shown is opens(engine, role, need), path


def test_policy_opens_some_doors_to_some_roles_and_none_to_others(console):
    """The walk above would prove nothing if all answers were alike."""
    engine = Engine(console.site.bundle())
    asked = {need for need in DOORS.values() if isinstance(need, ApiAction)}
    allowed = {role: sum(opens(engine, role, need) for need in asked) for role in Role}
    assert allowed[Role.COMPLIANCE] == len(asked)
    assert 0 < allowed[Role.ENGINEER] < len(asked)
    assert allowed[Role.BILLING] == 0


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A console that serves TLS itself, by a certificate for localhost; and who vouches for it."""
    folder = tmp_path_factory.mktemp("sealed")
    authority = Authority(folder / "ca")
    certificate, key = authority.issue("localhost")
    site = hospital(folder, certificate=certificate, key=key)
    fill(site, 5)
    with ConsoleProcess(site, folder) as running:
        running.url = f"https://localhost:{running.port}"
        yield running, str(authority.ca)


@pytest.fixture
def visitor(sealed):
    console, ca = sealed
    own = Visitor(console)
    own.http.close()
    own.http = httpx.Client(
        base_url=console.url, verify=ssl.create_default_context(cafile=ca), timeout=60
    )
    yield own
    own.http.close()


def test_over_tls_the_cookie_is_bound_to_this_host_and_never_sent_in_the_clear(sealed, visitor):
    answer = visitor.sign_in(OFFICER, PASSWORD)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    value, *attributes = [part.strip().lower() for part in rest.split(";")]
    assert name == "__Host-bedside-console"
    assert len(value) >= 43
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= set(attributes)
    assert not any(attribute.startswith("domain") for attribute in attributes)
    assert visitor.get("/search").status_code == 200
    # A name without the prefix could have been set by another host of the domain: it opens nothing.
    token = visitor.http.cookies[name]
    visitor.http.cookies.clear()
    for other in ("bedside-console", "__Secure-bedside-console"):
        answer = visitor.get("/search", Cookie=f"{other}={token}")
        assert answer.headers["location"].startswith("/sign-in")
    assert visitor.get("/search", Cookie=f"{name}={token}").status_code == 200


def test_over_tls_browsers_are_told_to_come_back_over_nothing_else(visitor):
    for path in ("/sign-in", "/", "/nothing-here"):
        assert "max-age=31536000" in visitor.get(path).headers["strict-transport-security"]


def test_a_form_from_a_page_in_the_clear_is_refused(sealed, visitor):
    console, _ = sealed
    fields = {"name": OFFICER, "password": PASSWORD}
    for origin in (f"http://localhost:{console.port}", "https://localhost", "null"):
        answer = visitor.http.post("/sign-in", data=fields, headers={"Origin": origin})
        assert answer.status_code == 403, origin


def test_the_port_of_tls_answers_nothing_in_the_clear_and_no_old_protocol(sealed):
    console, ca = sealed
    with socket.create_connection(("127.0.0.1", console.port), timeout=20) as connection:
        connection.sendall(b"GET /sign-in HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Bedside console" not in connection.recv(4096)
    context = ssl.create_default_context(cafile=ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises(ssl.SSLError),
        socket.create_connection(("127.0.0.1", console.port), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname="localhost"),
    ):
        pass


def test_a_report_and_a_persons_history_are_kept_in_no_cache(console):
    officer = console.officer()
    officer.post("/reports", kind="integrity")
    while "<progress" in (text := officer.read("/reports")):
        pass
    (path,) = {part for part in text.split('"') if part.endswith("/zip")}
    for address in (path, f"/subjects/{'ab' * 32}", "/records/st-anna/gateway-1/0"):
        answer = officer.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store", address
    assert officer.post("/sign-out").headers["clear-site-data"] == '"cache"'
