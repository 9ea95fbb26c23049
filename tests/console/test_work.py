"""What officers do in the console: review emergencies, make reports, ask policies; all recorded."""

import hashlib
import html
import io
import json
import re
import time
import zipfile

import pytest
from support.officers import CLINICIAN, OFFICER, OPERATOR, ConsoleProcess, fill, hospital

from audit.records import PolicyRecord, PolicyStep, ReportRecord, ReportStep, ReviewRecord
from audit.reports import verify_report


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    """A console of this module's own: its emergencies get reviewed."""
    folder = tmp_path_factory.mktemp("working-console")
    site = hospital(folder)
    fill(site)
    with ConsoleProcess(site, folder) as running:
        visitor = running.officer()
        until(lambda: "complete up to" in visitor.read("/"))
        yield running


@pytest.fixture(scope="module")
def officer(console):
    return console.officer()


def until(met):
    deadline = time.monotonic() + 120
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def make(officer, kind, **fields):
    """Make a report; return the addresses of its files."""
    assert officer.post("/reports", kind=kind, **fields).headers["location"] == "/reports"
    links = []

    def made():
        text = officer.read("/reports")
        assert 'class="notice alert"' not in text
        links[:] = re.findall(r'href="(/reports/[^"]+)" download', text)
        return "<progress" not in text and links

    until(made)
    identifier = links[0].split("/")[2]
    return {link.rpartition("/")[2]: link for link in links if identifier in link}


def test_a_report_is_made_fetched_and_verifies_without_the_console(console, officer, tmp_path):
    forms = make(officer, "access", outcome="refused")
    assert set(forms) == {"zip", "pdf", "csv", "json", "fhir"}
    packed = officer.get(forms["zip"])
    assert packed.headers["content-disposition"] == 'attachment; filename="access-report.zip"'
    path = tmp_path / "report.zip"
    path.write_bytes(packed.content)
    keys = [source.verifier for source in console.site.log_sources()]
    verified = verify_report(path, keys)
    assert verified.receipt is not None
    assert verified.entries > 0
    assert officer.get(forms["pdf"]).content.startswith(b"%PDF")
    assert officer.get(forms["csv"]).text.startswith("log")
    digest = hashlib.sha256(
        zipfile.ZipFile(io.BytesIO(packed.content)).read("manifest.json")
    ).hexdigest()
    made = [r for r in console.records("reports") if isinstance(r, ReportRecord)]
    assert (made[-1].digest, made[-1].principal) == (digest, OFFICER)

    def fetched():
        return [r for r in reports(console, ReportStep.FETCHED) if r.digest == digest]

    until(lambda: len(fetched()) >= 3)
    assert [(r.kind, r.principal) for r in fetched()] == [("access", OFFICER)] * 3
    assert reports(console, ReportStep.ORDERED)


def reports(console, step):
    return [r for r in console.records() if isinstance(r, ReportRecord) and r.step is step]


def test_a_report_is_its_makers_alone(console, officer):
    forms = make(officer, "integrity")
    other = console.officer(OPERATOR)
    assert other.get(forms["zip"]).status_code == 403
    assert officer.get(forms["zip"].replace("/zip", "/exe")).status_code == 404
    assert officer.get("/reports/ab/zip").status_code == 404


def test_a_report_about_one_person_is_made_of_their_identifier_and_holds_none(console, officer):
    forms = make(officer, "subject", identifier="mrn-0007")
    content = json.loads(officer.get(forms["json"]).content)
    assert content["filters"]["subject"] == console.site.pseudonymizer().pseudonym("mrn-0007")
    assert "mrn-0007" not in officer.read("/reports") + json.dumps(content)


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"kind": "nothing"}, {"kind": "subject"}, {"kind": "access", "since": "soon"},
        {"kind": "access", "principal": "Jane Doe"}, {"kind": "access", "outcome": "lost"},
        {"kind": "subject", "subject": "mrn-0001"}, {"kind": "subject", "identifier": "x" * 300},
    ],
)  # fmt: skip
def test_an_order_that_does_not_fit_makes_nothing(officer, fields):
    answer = officer.post("/reports", **fields)
    assert answer.status_code == 400
    assert "Not made." in answer.text
    assert "Jane" not in answer.text
    assert "mrn-0001" not in answer.text


def test_the_last_day_that_there_is_bounds_nothing(console, officer):
    assert officer.post("/reports", kind="access", until="9999-12-31").status_code == 303
    replayed = {"bundle": console.site.bundle().digest(), "until": "9999-12-31"}
    assert officer.post("/policy/replay", **replayed).status_code == 303
    assert officer.get("/search?until=9999-12-31").status_code == 200


def test_more_orders_than_may_wait_are_refused_for_now(officer):
    fields = {"form_key": officer.form_key(), "kind": "access"}
    for _ in range(100):
        answer = officer.submit("/reports", fields)
        if answer.status_code != 303:
            break
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "reports wait already" in answer.text
    until(lambda: "waiting" not in officer.read("/reports").lower())


def test_what_fits_stays_in_the_form_of_an_order_that_does_not(officer):
    answer = officer.post(
        "/reports",
        kind="integrity",
        since="2026-11-01",
        until="soon",
        outcome="refused",
        identifier="x",
    )
    assert answer.status_code == 400
    assert 'value="2026-11-01"' in answer.text
    assert '<option value="refused" selected>' in answer.text
    assert re.search(r'value="integrity" required checked', answer.text)
    assert "soon" not in answer.text


def test_an_emergency_is_signed_off_once_and_waits_no_more(console, officer):
    waiting = re.findall(r'name="record" value="([^"]+)"', officer.read("/emergencies"))
    assert waiting
    reference = waiting[0]
    assert officer.post("/emergencies", record=reference, verdict="escalated").status_code == 303
    text = officer.read("/emergencies")
    assert f'value="{reference}"' not in text
    assert reference in text
    (review,) = [
        record
        for record in console.records("reviews")
        if isinstance(record, ReviewRecord)
        and f"{record.reviewed_log}#{record.reviewed_number}" == reference
    ]
    assert (review.verdict.value, review.principal) == ("escalated", OFFICER)
    again = officer.post("/emergencies", record=reference, verdict="justified")
    assert again.status_code == 409
    assert "reviewed before" in again.text
    for record, verdict, status in (
        ("st-anna/gateway-1#0", "justified", 409),
        ("nothing", "justified", 409),
        (reference, "fine", 400),
    ):
        assert officer.post("/emergencies", record=record, verdict=verdict).status_code == status


def test_policies_are_shown_with_what_they_say_and_cite(officer, console):
    text = html.unescape(officer.read("/policy"))
    bundle = console.site.bundle()
    assert bundle.digest() in text
    for words in ("hipaa-treatment", "GDPR Art. 44", "A clinician may use health data to treat"):
        assert words in text


def asked(console):
    """Who asked what of policies, as far as the log has published it."""
    policies = (r for r in console.records() if isinstance(r, PolicyRecord))
    return [(record.step, record.principal) for record in policies]


def test_a_replay_reproduces_what_its_own_bundle_decided(console, officer):
    answer = officer.post("/policy/replay", bundle=console.site.bundle().digest())
    path = answer.headers["location"]
    until(lambda: "<progress" not in officer.read(path))
    text = officer.read(path)
    assert "600 decisions decided again: 600 unchanged" in text
    assert "600 of 600" in text
    until(lambda: asked(console)[-1:] == [(PolicyStep.REPLAY, OFFICER)])
    assert console.officer(OPERATOR).get(path).status_code == 404


def test_two_bundles_are_compared_over_every_combination(console, officer):
    from policies import draft_document

    site = console.site
    draft = _without_residency(site)
    folder = site.bundles().folder.drafts
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{draft.digest()}.json").write_bytes(draft_document(draft))
    assert "a draft" in officer.read("/policy")
    answer = officer.post("/policy/diff", before=site.bundle().digest(), after=draft.digest())
    path = answer.headers["location"]
    until(lambda: "<progress" not in officer.read(path))
    text = officer.read(path)
    assert "of facts are decided otherwise" in text
    assert "refused \u2192 permitted" in text
    assert officer.post("/policy/diff", before="ab" * 32, after=draft.digest()).status_code == 400


def _without_residency(site):
    from msgspec import structs

    bundle = site.bundle()
    return structs.replace(bundle, version=bundle.version + 1, residency={})


def test_models_and_jobs_are_shown_from_the_log(officer):
    models = officer.read("/models")
    assert "sepsis" in models
    assert "retina" in models
    jobs = officer.read("/jobs")
    assert "24 (at least 10)" in jobs
    assert "failed" in jobs


@pytest.mark.parametrize(
    ("name", "opens"),
    [
        (OFFICER, {"/", "/search", "/emergencies", "/reports", "/policy", "/models", "/jobs"}),
        (OPERATOR, {"/policy", "/models", "/jobs"}),
        (CLINICIAN, set()),
    ],
)
def test_each_role_opens_what_policy_lets_it_and_sees_nothing_else_in_the_menu(console, name, opens):
    visitor = console.officer(name)
    paths = ("/search", "/emergencies", "/reports", "/policy", "/models", "/jobs")
    assert {path for path in paths if visitor.get(path).status_code == 200} == opens - {"/"}
    menu = re.search(r'<nav class="pages".*?</nav>', visitor.read("/account"), re.DOTALL).group()
    assert set(re.findall(r'href="([^"]+)"', menu)) == opens
    if name == OPERATOR:
        assert visitor.get("/").headers["location"] == "/policy"
        assert visitor.post("/policy/replay", bundle="ab" * 32).status_code == 403
    if name == CLINICIAN:
        for path in ("/reports", "/emergencies", "/policy/diff", "/policy/replay"):
            assert visitor.post(path).status_code == 403
