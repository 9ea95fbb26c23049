"""What officers see, as their browsers are sent it; and what is written down of that.

Each test here only looks: they share one console.
"""

import html
import re

import pytest
from support.officers import CLINICIAN, OFFICER, OPERATOR

from audit.records import ConsoleAction, ConsoleProblem, Outcome, RequestRecord


def gateway(console):
    return console.records("gateway-1")


def rows(text):
    return re.findall(r'<a href="/records/st-anna/([^"/]+/\d+)"', text)


def test_the_overview_counts_what_the_logs_hold(console, officer):
    text = officer.read("/?period=90d")
    requests = [record for record in gateway(console) if isinstance(record, RequestRecord)]
    refused = sum(record.outcome is Outcome.REFUSED for record in requests)
    shown = dict(
        re.findall(r'<span class="label">([^<]+)</span>\s*<span class="value[^>]*>([^<]+)', text)
    )
    assert shown["Requests"] == f"{len(requests):,}"
    assert shown["Refused"] == f"{refused:,}"
    waiting = sum(bool(record.flags) for record in requests) - 1
    assert shown["Emergencies to review"] == str(waiting)
    assert "complete up to" in text
    for name in ("gateway-1", "coordinator", "reviews", "console"):
        assert f">{name}</a></th>" in text


def test_pages_of_a_search_hold_every_record_once_newest_first(console, officer):
    found, path = [], "/search?outcome=served"
    while path:
        text = officer.read(path)
        found += rows(text)
        links = re.findall(r'class="button" href="([^"]+)" hx-get', text)
        path = html.unescape(links[0]) if links else None
    served = [
        f"gateway-1/{number}"
        for number, record in enumerate(gateway(console))
        if record.outcome is Outcome.SERVED
    ]
    assert found == served[::-1]


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("principal=dr.adams", lambda record: record.principal == "dr.adams"),
        ("jurisdiction=DE&outcome=served", lambda r: r.jurisdiction == "DE" and r.placement),
        ("emergency=on", lambda record: record.emergency),
        ("model=retina&data_class=limited", lambda r: (r.model, r.data_class) == ("retina", "limited")),
        ("place=US-VA", lambda record: record.placement == "node:lab-east"),
        ("what=all&log=st-anna/gateway-1", lambda record: True),
        ("problem=policy-refused&purpose=HRESCH", lambda r: r.problem and r.purpose == "HRESCH"),
    ],
)
def test_filters_show_what_fits_and_nothing_else(console, officer, query, fits):
    found = rows(officer.read(f"/search?{query}"))
    wanted = [f"gateway-1/{n}" for n, record in enumerate(gateway(console)) if fits(record)]
    assert found == wanted[::-1][:50]
    assert found


def test_a_period_leaves_out_what_is_older(console, officer):
    last = rows(officer.read("/search?period=24h"))
    times = {f"gateway-1/{n}": record.time for n, record in enumerate(gateway(console))}
    newest = max(times.values())
    assert all((newest - times[one]).days < 1 for one in last)
    day = min(times.values()).date()
    first = rows(officer.read(f"/search?since={day}&until={day}"))
    assert first
    assert all(times[one].date() == day for one in first)


def test_what_a_search_showed_is_recorded_before_it_is_answered(console):
    officer = console.officer()
    shown = rows(officer.read("/search?principal=r.lind"))
    assert shown
    names = tuple(f"st-anna/{one}".replace("gateway-1/", "gateway-1#") for one in shown)
    # Another search before it may have shown as many.
    record = console.recorded(lambda r: r.action is ConsoleAction.SEARCH and r.shown == names)
    assert (record.principal, record.roles, record.subject) == (OFFICER, ("compliance",), None)


def test_a_persons_history_is_found_by_their_identifier_in_a_body(console):
    officer = console.officer()
    pseudonym = console.site.pseudonymizer().pseudonym("mrn-0007")
    answer = officer.post("/search/person", identifier="mrn-0007")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/subjects/{pseudonym}"
    text = officer.read(f"/subjects/{pseudonym}")
    own = [n for n, record in enumerate(gateway(console)) if record.subject == pseudonym]
    assert rows(text.partition("Who looked here")[0]) == [f"gateway-1/{n}" for n in own[::-1]][:50]
    record = console.recorded(lambda r: r.subject == pseudonym)
    assert record.action is ConsoleAction.VIEW_SUBJECT
    again = officer.read(f"/subjects/{pseudonym}")
    assert "mrn-0007" not in text + again


def test_a_person_whom_nobody_asked_about_has_an_empty_history(console, officer):
    answer = officer.post("/search/person", identifier="nobody-at-all")
    assert "Nobody asked about this person" in officer.read(answer.headers["location"])


def test_a_record_is_explained_and_proved(console, officer):
    number, record = next(
        (n, r) for n, r in enumerate(gateway(console)) if r.problem and r.purpose == "HRESCH"
    )
    text = html.unescape(officer.read(f"/records/st-anna/gateway-1/{number}"))
    assert "Refused: limited data of US-CA for HRESCH may not run" in text
    assert "Proved just now: this record stands in the tree of 600 records" in text
    assert record.subject in text
    assert str(record.id) in text
    shown = console.recorded(lambda r: r.shown == (f"st-anna/gateway-1#{number}",))
    assert shown.action is ConsoleAction.VIEW_RECORD
    assert shown.subject == record.subject


@pytest.mark.parametrize(
    "path",
    [
        "/records/st-anna/gateway-1/600",
        "/records/st-anna/nothing/0",
        "/records/x/y",
        "/subjects/ab",
        "/no",
    ],
)
def test_what_is_not_there_is_not_found(officer, path):
    answer = officer.get(path)
    assert answer.status_code == 404
    assert "There is no page" in answer.text or "No such" in answer.text


def test_a_search_can_be_kept_and_let_go_of(console):
    officer = console.officer()
    answer = officer.post("/views", what="request", outcome="refused", period="7d", principal="r.lind")
    assert answer.headers["location"] == "/search?period=7d&outcome=refused&principal=r.lind"
    title = "Requests \u00b7 refused \u00b7 by r.lind \u00b7 last 7 days"
    text = officer.read("/search")
    assert title in text
    assert title not in console.officer(OPERATOR).get("/search").text
    (view,) = re.findall(r'name="view" value="([^"]+)"', text)
    assert officer.post("/views/remove", view=view).status_code == 303
    assert title not in officer.read("/search")


def test_a_search_for_what_no_record_has_is_not_kept(officer):
    answer = officer.post("/views", principal="jane-doe-mrn-0001")
    assert answer.status_code == 400
    assert "jane-doe" not in answer.text
    assert "jane-doe" not in officer.read("/search")


def test_roles_open_what_policy_lets_them_and_refusals_are_recorded(console):
    clinician = console.officer(CLINICIAN)
    assert clinician.get("/").status_code == 403
    for path in ("/search", "/subjects/" + "ab" * 32, "/records/st-anna/gateway-1/0"):
        assert clinician.get(path).status_code == 403
        assert clinician.get(path).headers["content-type"].startswith("text/html")
    refused = console.recorded(lambda r: r.principal == CLINICIAN and r.problem is not None)
    assert (refused.problem, refused.outcome) == (ConsoleProblem.NOT_PERMITTED, Outcome.REFUSED)
    for path in ("/search/person", "/views", "/views/remove"):
        assert clinician.post(path, identifier="mrn-0001").status_code == 403


def test_a_part_of_a_page_is_given_to_htmx(officer):
    part = officer.get("/search?outcome=failed", **{"HX-Request": "true"}).text
    assert part.lstrip().startswith('<section id="results"')
    assert "<html" not in part


@pytest.mark.parametrize(
    "query",
    [
        "outcome=lost", "what=everything", "principal=Jane%20Doe", "subject=mrn-0001",
        "since=yesterday", "jurisdiction=germany", "after=newest", "period=1y",
        "outcome=served&outcome=failed", "x=%ff",
        "&".join("a=b" for _ in range(50)),
    ],
)  # fmt: skip
def test_a_query_that_does_not_fit_is_refused_without_repeating_it(officer, query):
    answer = officer.get(f"/search?{query}")
    assert answer.status_code == 400
    for typed in ("lost", "everything", "Jane", "mrn-0001", "yesterday", "germany"):
        assert typed not in answer.text
