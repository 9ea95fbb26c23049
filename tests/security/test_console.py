"""Attacks on the console: on its forms, sessions, paths and pages. What they try stays outside."""

import re
import socket
import threading
from datetime import UTC, datetime
from uuid import UUID

import pytest
from support.officers import OFFICER, OPERATOR, PASSWORD, ConsoleProcess, fill, hospital
from support.raw import exchange

from audit.records import Action, ConsoleAction, ConsoleProblem, Outcome, RequestRecord

WRONG = "not the password of anybody"


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked-console")
    site = hospital(folder)
    fill(site, 40)
    with ConsoleProcess(site, folder) as running:
        yield running


@pytest.fixture
def officer(console):
    return console.officer()


FORMS = ("/sign-out", "/sign-out/everywhere", "/account", "/search/person", "/views", "/views/remove")


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", None, "http://127.0.0.1", "http://localhost.evil.example"],
)
def test_a_form_of_another_origin_changes_nothing(console, officer, path, origin):
    fields = {"form_key": officer.form_key(), "identifier": "mrn-0001", "outcome": "refused"}
    headers = {} if origin is None else {"Origin": origin}
    answer = officer.http.post(path, data=fields, headers=headers)
    assert answer.status_code == 403
    assert officer.get("/account").status_code == 200


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("key", [None, "", "x" * 43, "of-another"])
def test_a_form_without_the_key_of_its_session_changes_nothing(console, officer, path, key):
    if key == "of-another":
        key = console.officer().form_key()
    fields = {"identifier": "mrn-0001", "outcome": "refused"}
    answer = officer.submit(path, fields if key is None else {**fields, "form_key": key})
    assert answer.status_code == 400
    assert officer.get("/account").status_code == 200


@pytest.mark.parametrize("path", FORMS)
def test_a_form_is_no_get_and_no_json(officer, path):
    assert officer.get(f"{path}?form_key={officer.form_key()}").status_code in (200, 404, 405)
    headers = {"Origin": officer.origin}
    fields = {"form_key": officer.form_key()}
    assert officer.http.post(path, json=fields, headers=headers).status_code == 400
    assert officer.http.post(path, files={"form_key": b"x"}, headers=headers).status_code == 400
    for method in ("PUT", "DELETE", "PATCH"):
        assert officer.http.request(method, path, headers=headers).status_code == 405
    assert officer.get("/account").status_code == 200


def test_a_session_that_somebody_else_chose_is_never_taken_up(console):
    visitor = console.visitor()
    for chosen in ("x", "A" * 43):
        visitor.http.cookies.set("bedside-console", chosen, domain="127.0.0.1")
        assert visitor.get("/search").status_code == 303
        answer = visitor.sign_in(OFFICER, PASSWORD)
        given = answer.cookies["bedside-console"]
        assert given != chosen
        visitor.http.cookies.clear()


def test_signing_in_again_rotates_the_session_and_the_one_before_is_dead(console, officer):
    before = officer.http.cookies["bedside-console"]
    assert officer.sign_in(OFFICER, PASSWORD).status_code == 303
    assert officer.http.cookies["bedside-console"] != before
    stale = console.visitor()
    stale.http.cookies.set("bedside-console", before, domain="127.0.0.1")
    assert stale.get("/search").headers["location"] == "/sign-in?next=/search"


def test_a_session_is_dead_after_signing_out(console, officer):
    cookie = officer.http.cookies["bedside-console"]
    assert officer.post("/sign-out").headers["location"] == "/sign-in"
    stale = console.visitor()
    stale.http.cookies.set("bedside-console", cookie, domain="127.0.0.1")
    assert stale.get("/").status_code == 303
    assert console.recorded(lambda r: r.action is ConsoleAction.SIGN_OUT).principal == OFFICER


def test_signing_out_everywhere_ends_every_session_of_the_account_and_no_other(console, officer):
    browsers = [console.officer() for _ in range(2)]
    operator = console.officer(OPERATOR)

    def signed_out():
        actions = (getattr(record, "action", None) for record in console.records())
        return list(actions).count(ConsoleAction.SIGN_OUT)

    before = signed_out()
    assert officer.post("/sign-out/everywhere").headers["location"] == "/sign-in"
    for visitor in (officer, *browsers):
        assert visitor.get("/search").headers["location"] == "/sign-in?next=/search"
    assert operator.get("/models").status_code == 200
    # The log has it once for each browser; other tests of this console may have left some signed in.
    console.recorded(lambda _: signed_out() >= before + 3)


def test_the_cookie_is_for_http_and_this_site_only(console):
    cookie = console.visitor().sign_in(OFFICER, PASSWORD).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "domain" not in cookie


@pytest.mark.parametrize(
    "onward",
    [
        "https://evil.example", "//evil.example", "/\\evil.example", "/%2f/evil.example",
        "javascript:alert(1)",         "/search/../../x", "/sign-out", " /search", "/search?x=1",
    ],
)  # fmt: skip
def test_signing_in_leads_to_pages_of_the_console_only(console, onward):
    visitor = console.visitor()
    assert visitor.sign_in(OFFICER, PASSWORD, next=onward).headers["location"] in ("/", "/search")
    assert "evil" not in console.visitor().http.get("/sign-in", params={"next": onward}).text


CLIMBS = [
    "..", "../..", "../console.py", "%2e%2e/console.css", "..%2fconsole.py", "....//x", "/etc/passwd",
    "%2fetc%2fpasswd", "console.css%00", "..\\x", "console.css", "htmx-4.0.1.min.js",
]  # fmt: skip


@pytest.mark.parametrize("climb", CLIMBS)
def test_no_path_leads_out_of_what_is_served(console, officer, climb):
    cookie = f"bedside-console={officer.http.cookies['bedside-console']}"
    for template in ("/static/{}", "/records/{}/0", "/subjects/{}", "/{}"):
        request = (
            f"GET {template.format(climb)} HTTP/1.1\r\nHost: 127.0.0.1:{console.port}\r\n"
            f"Cookie: {cookie}\r\nConnection: close\r\n\r\n"
        )
        statuses, received = exchange(console.port, request.encode())
        assert statuses[0] in (400, 404), (template, received)
        assert b"root:" not in received
        assert b"import " not in received


HTML_PAGES = ("/", "/search", "/account", "/sign-in", "/nothing-here")


@pytest.mark.parametrize("path", HTML_PAGES)
def test_every_page_is_confined_by_its_headers(officer, path):
    for answer in (officer.get(path), officer.submit(path, {}), officer.http.put(path)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
    text = officer.get(path).text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", text)
    assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", text)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example", ""]
)
def test_another_name_for_this_address_reads_nothing(console, officer, host):
    cookie = officer.http.cookies["bedside-console"]
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nCookie: bedside-console={cookie}\r\n"
    request += "Connection: close\r\n\r\n"
    (status, *_), received = exchange(console.port, request.encode())
    assert status in (400, 421)
    assert b"Requests over time" not in received


def test_what_a_record_or_an_account_says_is_never_markup():
    """Record fields cannot hold `<`; a page model that somehow did is still only text."""
    from jinja2 import Environment, FileSystemLoader

    from audit.index import Hit
    from console.pages.rows import row_of
    from console.web import TEMPLATES

    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    record = RequestRecord(
        time=datetime(2026, 11, 24, tzinfo=UTC),
        id=UUID(int=1),
        action=Action.INFER,
        outcome=Outcome.SERVED,
        status=200,
        principal=evil,
        roles=(evil,),
        subject=evil,
        model=evil,
        placement=evil,
        policies=(evil,),
    )
    row = row_of(Hit(origin=evil, position=0, record=record))
    loader = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    text = loader.get_template("parts.html").module.rows([row])
    assert "<script" not in text
    assert "<img" not in text
    assert "\"'>" not in text


def test_every_template_escapes():
    from console.web import TEMPLATES

    for path in TEMPLATES.glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape\s+false|Markup", path.read_text()), path.name


@pytest.fixture
def besieged(tmp_path):
    """A console of its own: it will lock everybody at this address out."""
    site = hospital(tmp_path, account_failures=3, address_failures=8)
    fill(site, 5)
    with ConsoleProcess(site, tmp_path) as running:
        yield running


def test_guessing_locks_the_account_and_then_the_address_and_is_recorded(besieged):
    visitor = besieged.visitor()
    for _ in range(3):
        answer = visitor.sign_in(OFFICER, WRONG)
        assert answer.status_code == 401
        assert WRONG not in answer.text
    locked = visitor.sign_in(OFFICER, PASSWORD)
    assert locked.status_code == 429
    assert int(locked.headers["retry-after"]) > 0
    record = besieged.recorded(lambda r: r.problem is ConsoleProblem.ACCOUNT_LOCKED)
    assert (record.account, record.principal, record.address) == (OFFICER, None, "127.0.0.1")
    for number in range(5):
        assert visitor.sign_in(f"jane.doe.{number}", WRONG).status_code == 401
    assert visitor.sign_in("it.operator", PASSWORD).status_code == 429
    besieged.recorded(lambda r: r.problem is ConsoleProblem.ADDRESS_LOCKED)
    besieged.stop()
    refused = [r for r in besieged.records() if getattr(r, "action", None) is ConsoleAction.SIGN_IN]
    assert len(refused) == 8
    assert {r.account for r in refused} == {OFFICER, None}
    # A restart forgets no failure, and nothing that was typed is anywhere.
    besieged.start()
    assert besieged.visitor().sign_in("it.operator", PASSWORD).status_code == 429
    besieged.stop()
    for path in besieged.site.data.rglob("*"):
        if path.is_file():
            assert b"jane.doe" not in path.read_bytes(), path


def test_many_guesses_at_once_are_no_way_round(besieged):
    answers = []

    def guess():
        visitor = besieged.visitor()
        answers.append(visitor.sign_in(OFFICER, WRONG).status_code)

    threads = [threading.Thread(target=guess) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(401) == 3
    assert answers.count(429) == 4


def test_unknown_names_are_answered_like_known_ones(console):
    known = console.visitor().sign_in(OFFICER, WRONG)
    unknown = console.visitor().sign_in("nobody.at.all", WRONG)
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)
    assert set(known.headers) == set(unknown.headers)


def test_a_form_that_is_too_large_is_not_read(console):
    visitor = console.visitor()
    assert visitor.sign_in(OFFICER, "x" * 20_000).status_code == 413
    with socket.create_connection(("127.0.0.1", console.port), timeout=20) as connection:
        connection.sendall(b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert connection.recv(100)
