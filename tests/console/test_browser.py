"""The console in Debian's Chromium: no accessibility violation, only its own scripts, keyboard enough.

Screenshots of every page, light and dark, wide and narrow, are left in build/screenshots.
"""

import re
from pathlib import Path

import pytest
from support.browser import chromium_path
from support.officers import OFFICER, PASSWORD

AXE = (Path(__file__).parent / "vendored/axe-4.14.1.min.js").read_text()
SCREENSHOTS = Path(__file__).parents[2] / "build/screenshots"
# WCAG 2.2 at level AA is these; best practices are axe's own, and kept too.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PAGES = ("/", "/search", "/emergencies", "/reports", "/policy", "/models", "/jobs", "/account")


@pytest.fixture(scope="module")
def chromium():
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container has no user namespaces to sandbox with; only our own pages are opened.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, console):
    """Opens windows; at the end nothing was fetched from elsewhere, and nothing went wrong."""
    contexts, troubles = [], []

    def window(width=1280, scheme="light", **more):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: troubles.append(message.text) if "404" not in message.text else None,
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda asked: troubles.append(asked.url) if not asked.url.startswith(console.url) else None,
        )
        page.goto(f"{console.url}/sign-in")
        return page

    yield window
    for context in contexts:
        context.close()
    assert troubles == []


def sign_in(page):
    page.fill("#name", OFFICER)
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("nav.pages")
    return page


def violations(page):
    page.evaluate(AXE)
    found = page.evaluate(
        "rules => axe.run(document, {runOnly: rules}).then(found => found.violations.map("
        "one => one.id + ': ' + one.nodes.map(node => node.html).join(' | ')))",
        RULES,
    )
    return [one[:400] for one in found]


def visit(page, url, name):
    page.goto(url)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)
    assert "\n".join(violations(page)) == "", url
    # Nothing is cut off sideways at any width (WCAG 1.4.10).
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_no_page_has_an_accessibility_violation(opened, console, width, scheme):
    page = opened(width, scheme)
    assert violations(page) == []
    sign_in(page)
    pseudonym = console.site.pseudonymizer().pseudonym("mrn-0007")
    more = ("/records/st-anna/gateway-1/17", f"/subjects/{pseudonym}", "/search?outcome=abandoned")
    paths = (*PAGES, *more)
    for path in paths:
        name = re.sub(r"\W+", "-", path.split("?")[0]).strip("-")[:20] or "overview"
        visit(page, f"{console.url}{path}", f"{name}-{width}-{scheme}")
    with page.expect_response(lambda answer: answer.status == 404):
        page.goto(f"{console.url}/subjects/ab")
    assert violations(page) == []


def test_a_page_can_be_used_by_keyboard_alone(opened, console):
    page = sign_in(opened())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto(f"{console.url}/search")
    page.focus("#principal")
    page.keyboard.type("r.lind")
    with page.expect_response(lambda answer: "principal=r.lind" in answer.url):
        page.keyboard.press("Enter")
    page.wait_for_selector("h2:has-text('by r.lind')")
    assert page.url == f"{console.url}/search?principal=r.lind"
    who = page.locator(".records tbody tr:not(.more) td[data-label=Who]").all_text_contents()
    assert who
    assert all(text.startswith("r.lind") for text in who)


def test_more_records_are_added_without_leaving_the_page(opened, console):
    page = sign_in(opened())
    page.goto(f"{console.url}/search")
    assert page.locator(".records tbody tr:not(.more)").count() == 50
    page.click("text=Show more")
    page.wait_for_selector(".records tbody tr:nth-child(100)")
    names = [link.get_attribute("href") for link in page.locator(".records tbody .time + td a").all()]
    assert len(set(names)) == 100


def test_everything_works_without_scripts(opened, console):
    page = sign_in(opened(java_script_enabled=False))
    page.goto(f"{console.url}/search")
    page.fill("#principal", "r.lind")
    page.click("form.filters button.primary")
    assert "principal=r.lind" in page.url
    page.fill("#identifier", "mrn-0007")
    page.click("text=Show who asked about them")
    assert re.search(r"/subjects/[0-9a-f]{64}$", page.url)
    assert "mrn-0007" not in page.content()


def test_a_page_prints_without_its_menus(opened, console):
    page = sign_in(opened())
    page.goto(f"{console.url}/records/st-anna/gateway-1/17")
    page.emulate_media(media="print")
    assert not page.is_visible("nav.pages")
    assert page.is_visible("text=Proved just now")
    assert len(page.pdf()) > 1000
