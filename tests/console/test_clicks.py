"""What officers do, click by click in a browser, each to the record that says that it was done."""

import asyncio
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec import structs
from support.axe import look
from support.browser import chromium_path
from support.officers import (
    CLINICIAN,
    OFFICER,
    PASSWORD,
    ConsoleProcess,
    fill,
    hospital,
    write,
)

from audit.records import (
    Action,
    Outcome,
    PolicyRecord,
    PolicyStep,
    ReportRecord,
    ReportStep,
    RequestRecord,
    ReviewRecord,
)
from bedside.children import bedside_command
from bedside.up import environment_of
from policies import Role, draft_document

# A busy machine may take long over a bundle's combinations.
ANSWERED_MS = 120_000


def rollouts(now):
    """Old records that are pruned, in whole bundles; then a model is loaded on two nodes."""
    told = {"action": Action.LOAD, "outcome": Outcome.SERVED, "status": 200, "model": "sepsis"}
    old = now - timedelta(days=3000)
    return [
        *(RequestRecord(time=old, id=UUID(int=n), **told) for n in range(256)),
        RequestRecord(
            time=now - timedelta(hours=4), id=UUID(int=999), principal="it.operator",
            roles=("operator",), model_version="3", changed=("us-1", "lab-east"), **told,
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    """A console with a log that was pruned, a rollout, and a draft of policies."""
    folder = tmp_path_factory.mktemp("clicked-console")
    site = hospital(folder)
    fill(site)
    asyncio.run(write(site, "gateway-2", rollouts(datetime.now(UTC))))
    token = site.token_issuer().issue(OFFICER, [Role.COMPLIANCE], lifetime_s=600)
    subprocess.run(
        bedside_command("audit", "prune", "--execute", "--yes"),
        env={**os.environ, **environment_of(site.config), "TOKEN": token},
        cwd=folder, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    # The log's own writer carries the decision out when it next opens.
    asyncio.run(write(site, "gateway-2", []))
    bundle = site.bundle()
    draft = structs.replace(bundle, version=bundle.version + 1, residency={})
    drafts = site.bundles().folder.drafts
    drafts.mkdir(parents=True, exist_ok=True)
    (drafts / f"{draft.digest()}.json").write_bytes(draft_document(draft))
    with ConsoleProcess(site, folder) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(console):
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, console):
    """A window of somebody who signed in, once the index is complete."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.goto(f"{console.url}/sign-in")
    page.fill("#name", OFFICER)
    page.fill("#password", PASSWORD)
    page.click("text=Sign in")
    page.wait_for_selector("nav.pages")
    while "complete up to" not in page.text_content("footer"):
        page.reload()
    yield page
    context.close()


def menu(page, title):
    page.click(f"nav.pages >> text={title}")
    page.wait_for_selector(f"h1:has-text('{title}')")


def recorded(console, page, kind, name="console"):
    """Follow the link to the record of what was just done; return that record and the page's head."""
    link = page.locator(
        "main a[href^='/records/']", has_text=re.compile(rf"^st-anna/{name}#\d+$")
    ).first
    number = int(link.text_content().rpartition("#")[2])
    link.click()
    page.wait_for_selector("#proof")
    # The index follows the logs twice a second.
    while "Proved just now" not in page.text_content("main"):
        page.reload()
    record = console.records(name)[number]
    assert isinstance(record, kind)
    assert record.principal == OFFICER
    return record, page.text_content("h1")


def test_an_emergency_is_signed_off(console, page):
    menu(page, "Emergencies")
    first = page.locator(".reviews li").first
    reference = first.locator("input[name=record]").get_attribute("value")
    first.locator("label:has-text('escalated')").click()
    first.locator("button").click()
    page.wait_for_selector(".notice.calm")
    said = page.text_content(".notice.calm")
    assert "Signed off as escalated" in said
    assert reference in said
    look(page, "signed-off-1280-light")
    record, head = recorded(console, page, ReviewRecord, "reviews")
    assert f"{record.reviewed_log}#{record.reviewed_number}" == reference
    assert head.startswith("Review: escalated")
    # An address that names a review of somebody else's, or none, says nothing.
    for number in ("0", "99", "x"):
        page.goto(f"{console.url}/emergencies?signed={number}")
        shown = page.locator(".notice.calm").count()
        assert shown == (1 if number == "0" and record_of(console, 0).principal == OFFICER else 0)


def record_of(console, number):
    return console.records("reviews")[number]


def test_a_draft_is_compared_with_what_is_in_force(console, page):
    menu(page, "Policies")
    page.select_option("#before", label="version 1, in force")
    page.select_option("#after", label="version 2, a draft")
    page.click("button:has-text('Compare')")
    page.wait_for_selector("text=of facts are decided otherwise", timeout=ANSWERED_MS)
    assert "refused \u2192 permitted" in page.text_content("#answer")
    look(page, "compared-1280-light")
    record, head = recorded(console, page, PolicyRecord)
    assert (record.step, record.version) == (PolicyStep.DIFF, 2)
    assert head.startswith("Policy diff")


def test_recorded_requests_are_replayed_under_a_draft(console, page):
    menu(page, "Policies")
    page.select_option("#bundle", label="version 2, a draft")
    page.click("button:has-text('Replay')")
    page.wait_for_selector("text=decided again", timeout=ANSWERED_MS)
    assert "600 decisions decided again" in page.text_content("#answer")
    look(page, "replayed-1280-light")
    record, _ = recorded(console, page, PolicyRecord)
    assert (record.step, record.version) == (PolicyStep.REPLAY, 2)
    menu(page, "Policies")
    assert page.locator("#asked").count() == 1


def test_a_rollout_leads_to_its_record(console, page):
    menu(page, "Models")
    row = page.locator("tr", has_text="us-1, lab-east")
    assert "it.operator" in row.text_content()
    row.locator("a").click()
    page.wait_for_selector("h1:has-text('Load sepsis v3')")
    assert "Proved just now" in page.text_content("main")


def test_a_report_is_made_and_fetched(console, page, tmp_path):
    menu(page, "Reports")
    page.click("label:has-text('Integrity statement')")
    page.click("text=Make the report")
    page.wait_for_selector("#made a[download]", timeout=ANSWERED_MS)
    look(page, "report-made-1280-light")
    with page.expect_download() as fetched:
        page.click("#made a:has-text('ZIP')")
    fetched.value.save_as(tmp_path / "report.zip")
    assert (tmp_path / "report.zip").read_bytes()[:2] == b"PK"
    record, head = recorded(console, page, ReportRecord, "reports")
    assert (record.step, record.kind) == (ReportStep.MADE, "integrity")
    assert head.startswith("Report made")


def test_a_search_is_saved_and_let_go_of(console, page):
    menu(page, "Records")
    with page.expect_response(lambda answer: "outcome=refused" in answer.url):
        page.select_option("#outcome", "refused")
    page.wait_for_selector("h2:has-text('refused')")
    page.click("text=Save this search")
    page.wait_for_selector(".saved a[aria-current]")
    look(page, "saved-1280-light")
    page.click(".saved button")
    page.wait_for_selector(".saved", state="detached")


def test_a_pruned_record_says_who_decided_that_and_proves_where_it_stood(console, page):
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        answer = page.goto(f"{console.url}/records/st-anna/gateway-2/17")
        assert answer.status == 410
        assert page.text_content("h1") == "This record was pruned"
        assert "a record with this hash stood here" in page.text_content("main")
        look(page, f"pruned-{width}-{scheme}")
    page.click("main a[href^='/records/st-anna/retention/']")
    page.wait_for_selector("h1:has-text('Log pruned')")
    shown = console.recorded(lambda r: r.shown == ("st-anna/gateway-2#17",))
    assert shown.principal == OFFICER
    assert page.goto(f"{console.url}/records/st-anna/gateway-2/256").status == 200


def test_signing_out_everywhere_ends_this_browser_too(console, page):
    other = console.officer()
    page.click(".who a")
    page.wait_for_selector("text=browsers, this one among them")
    page.click("text=Sign out everywhere")
    page.wait_for_selector("#password")
    assert other.get("/search").status_code == 303


def test_a_locked_account_says_how_long_to_wait(chromium, console):
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    for _ in range(6):
        page.goto(f"{console.url}/sign-in")
        page.fill("#name", CLINICIAN)
        page.fill("#password", "not the password of anybody")
        page.click("text=Sign in")
        page.wait_for_selector("#problem")
    assert "Wait 15 minutes" in page.text_content("#problem")
    look(page, "locked-390-light")
    context.close()
