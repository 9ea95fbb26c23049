"""Hypothesis over every form of the console: fields that are missing, repeated, huge or no text at all.

Whatever is sent, it is answered, never with status 500; nothing of it comes back or is written, and a
form without its session's key does nothing.

Seen to fail: with the day after 9999-12-31 asked for, with one order too many of reports not answered,
with `surrogateescape` for what is no UTF-8, with the key of a form not looked at, and with an
identifier in the message that it does not fit.
"""

import html
import re
import urllib.parse
from unittest.mock import MagicMock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import call, use
from support.canaries import TAG, Planter
from support.officers import OFFICER, PASSWORD, ConsoleProcess, fill, hospital

from audit.reports import KINDS
from bedside.demo.canaries import written_files
from console.app import build_app
from console.forms import FORM_TYPE

ANSWERS = {200, 303, 400, 401, 403, 409, 413, 429, 503}
# The first report loads what draws it, and hashes of passwords take 64 MiB each: about 90 MiB were
# seen, after 400 forms and after 1,400.
MEMORY_BYTES = 160 << 20
THREADS = 12
# Two pools of five connections to SQLite, of three files each. A file left by each form would be 400.
FILES = 30
LOOKS = 2000
EXAMPLES = 35
# A password's hash takes a twentieth of a second, on purpose.
WITH_PASSWORDS = 12
DAYS = ("", "2026-01-31", "0001-01-01", "9999-12-31")

# None of these fits any field but those of free text, so that nothing of them may be kept or shown.
MARKED = st.integers(0, 2**32).map(lambda number: f"<{TAG}{number:x} \"'>\r\nX-Injected: 1")
ENCODED = MARKED.map(urllib.parse.quote_plus).map(str.encode)
NO_TEXT = st.sampled_from(
    [
        b"%ED%A0%80",
        b"%00",
        b"%",
        b"%zz",
        b"%ff",
        b"\xff",
        b"%F0%9F",
        b";",
        b"%C2%A0",
        b"+",
        b"%E2%80%AE",
    ]
)
HUGE = st.sampled_from([300, 6_000, 20_000]).map(lambda size: b"<" + TAG.encode() * (size // len(TAG)))

# What each form has, and what its fields may hold.
FORMS = {
    "/sign-in": {"name": (OFFICER, "nobody"), "password": ("wrong",), "next": ("/search", "//x")},
    "/sign-out": {},
    "/sign-out/everywhere": {},
    "/account": {"old": ("wrong",), "new": (PASSWORD[::-1], "short"), "again": (PASSWORD[::-1],)},
    "/search/person": {"identifier": ("mrn-0007",)},
    "/views": {
        "what": ("request", "all"),
        "period": ("7d", ""),
        "since": DAYS,
        "until": DAYS,
        "outcome": ("served",),
        "principal": ("dr.adams", ""),
        "subject": ("ab" * 32, ""),
        "model": ("sepsis",),
        "jurisdiction": ("DE", ""),
        "log": ("st-anna/gateway-1",),
        "emergency": ("on", "off"),
    },
    "/views/remove": {"view": ("1", "00000000-0000-0000-0000-000000000000")},
    "/emergencies": {
        "record": ("st-anna/gateway-1#1", "#1", "st-anna/gateway-1#" + "9" * 18, "x#" + "9" * 5000),
        "verdict": ("justified", "escalated"),
    },
    "/reports": {
        "kind": tuple(KINDS),
        "since": DAYS,
        "until": DAYS,
        "principal": ("dr.adams",),
        "outcome": ("served", "refused"),
        "subject": ("ab" * 32, ""),
        "identifier": ("mrn-0007",),
    },
    "/policy/diff": {"before": ("in-force", "ab" * 32), "after": ("in-force", "ab" * 32)},
    "/policy/replay": {"bundle": ("in-force", "ab" * 32), "since": DAYS, "until": DAYS},
}
PAGES = ("/", "/search", "/account", "/emergencies", "/reports", "/policy", "/models", "/jobs")


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    # Nobody is to be locked out here, however often a password is wrong.
    site = hospital(folder, account_failures=10**6, address_failures=10**6)
    fill(site, 60)
    with ConsoleProcess(site, folder) as running:
        officer = running.officer()
        looks = ("complete up to" in officer.read("/") for _ in range(LOOKS))
        assert any(looks)
        yield running


class Browser:
    """Somebody who is signed in, again whenever a form has signed them out."""

    def __init__(self, console):
        self._url = console.url
        self._cookie = ""

    def session(self):
        """Return the cookie and the form key of a session that has not ended."""
        while True:
            account = call("GET", f"{self._url}/account", headers={"Cookie": self._cookie})
            if account.status == 200:
                keys = re.findall(rb'name="form_key" value="([^"]+)"', account.body)
                return self._cookie, keys[0]
            headers = {"Origin": self._url, "Content-Type": FORM_TYPE}
            body = urllib.parse.urlencode({"name": OFFICER, "password": PASSWORD}).encode()
            signed_in = call("POST", f"{self._url}/sign-in", headers=headers, body=body)
            self._cookie = signed_in.headers["set-cookie"].partition(";")[0]


@pytest.fixture(scope="module")
def browser(console):
    return Browser(console)


@pytest.fixture(scope="module", autouse=True)
def nothing_kept(console, browser):
    """Compare what the console holds before and after; what it wrote has nothing of what was sent."""
    plant = Planter()

    def read(path):
        return call("GET", console.url + path, headers={"Cookie": browser.session()[0]})

    def serves():
        pages = [read(path) for path in PAGES]
        assert not [page for page in pages if TAG.encode() in page.body]
        return {page.status for page in pages} == {200}

    def idle():
        call("GET", f"{console.url}/healthz")

    most = {"files": FILES, "threads": THREADS, "memory_bytes": MEMORY_BYTES}
    with use.nothing_kept(console.pid, serves, idle, **most):
        yield
    console.stop()
    files = written_files(console.site.data)
    assert files
    assert not list(plant.canaries.search([console.log, *files]))
    assert "unforeseen" not in console.log.read_text()
    assert "Traceback" not in console.log.read_text()
    assert "failed" not in console.log.read_text()


def test_every_form_is_here():
    shield = build_app(MagicMock(origins=frozenset(), secure=False, site="clinic"))
    (app,) = (part for part in vars(shield).values() if hasattr(part, "routes"))
    assert set(FORMS) == {route.path for route in app.routes if "POST" in route.methods}


@st.composite
def forms(draw, fields, in_force):
    """Return a form as it stands in a body, without its key: right, or wrong in a field, or in all."""
    spoilt = draw(st.sampled_from(["none", "none", "none", "all", *fields]))
    sent = []
    for name, values in fields.items():
        known = [in_force if value == "in-force" else value for value in values]
        fits = st.sampled_from(known).map(urllib.parse.quote_plus).map(str.encode)
        if spoilt not in ("all", name):
            sent.append((name.encode(), draw(fits)))
            continue
        for _ in range(draw(st.integers(0, 2))):
            sent.append((name.encode(), draw(fits | ENCODED | NO_TEXT | HUGE)))
    if spoilt == "all":
        more = st.tuples(ENCODED | NO_TEXT, ENCODED | NO_TEXT | HUGE)
        sent = draw(st.permutations([*sent, *draw(st.lists(more, max_size=2))]))
        sent *= draw(st.sampled_from([1, 1, 50]))
    return b"&".join(name + b"=" + value for name, value in sent)


KEYS = st.sampled_from(["none", "twice", f"%3C{TAG}", "%ED%A0%80", "%00", "%"])
TYPES = st.sampled_from(
    ["", f"{FORM_TYPE}; charset=utf-16", f"{FORM_TYPE.upper()};;", "application/json", f"text/{TAG}",
     "multipart/form-data; boundary=x"]
)  # fmt: skip
ORIGINS = st.sampled_from(["http://elsewhere.example", "null", f"http://{TAG}", ""])
COOKIES = st.sampled_from(["", "bedside-console=", f'bedside-console="\\303\\251{TAG}"'])
# At most one of these is wrong, so that as many forms as can be are read.
WRONG = {"key": KEYS, "type": TYPES, "origin": ORIGINS, "cookie": COOKIES}
HEADS = st.sampled_from([*[""] * 12, *WRONG]).flatmap(
    lambda name: st.fixed_dictionaries({name: WRONG[name]} if name else {})
)


@pytest.mark.parametrize("path", FORMS)
def test_every_form_is_answered_and_nothing_of_it_comes_back(console, browser, path):
    in_force = console.site.bundle().digest()
    asked = set()

    examples = WITH_PASSWORDS if path.startswith("/sign-") else EXAMPLES

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(forms(FORMS[path], in_force), HEADS)
    def ask(form, wrong):
        cookie, form_key = browser.session()
        key = wrong.get("key", "right")
        keys = {"right": [form_key], "none": [], "twice": [form_key, form_key]}.get(key, [key.encode()])
        body = b"&".join([*(b"form_key=" + one for one in keys), form])
        headers = {
            "Content-Type": wrong.get("type", FORM_TYPE),
            "Origin": wrong.get("origin", console.url),
            "Cookie": wrong.get("cookie", cookie),
        }
        answer = call("POST", console.url + path, headers=headers, body=body)
        assert answer.status in ANSWERS, answer
        assert TAG not in html.unescape(answer.body.decode())
        assert TAG not in "".join(answer.headers.values())
        assert "x-injected" not in answer.headers
        onward = answer.headers.get("location", "/sign-in")
        if path != "/sign-in" and not onward.startswith("/sign-in"):
            assert not wrong.keys() & {"key", "origin", "cookie"}
        asked.add(answer.status)

    ask()
    assert {200, 303, 400, 401, 409} & asked
