"""The console in Debian's Chromium: no accessibility violation, only its own scripts, keyboard enough.

Screenshots of every page, light and dark, wide and narrow, and each page as it prints, are left in
build/screenshots.
"""

import re
import unicodedata

import pytest
from support.axe import SCREENSHOTS, look
from support.browser import chromium_path
from support.officers import OFFICER, PASSWORD

PAGES = {
    "overview": "/",
    "overview-of-a-day": "/?period=24h",
    "search": "/search",
    "search-empty": "/search?outcome=abandoned",
    "search-filtered": "/search?principal=r.lind&period=30d",
    "search-of-everything": "/search?what=all",
    "search-wrong": "/search?principal=Jane+Doe&since=x",
    "record": "/records/st-anna/gateway-1/17",
    "record-of-a-job": "/records/st-anna/coordinator/3",
    "emergencies": "/emergencies",
    "reports": "/reports",
    "policy": "/policy",
    "models": "/models",
    "jobs": "/jobs",
    "account": "/account",
    "not-found": "/nothing-here",
    "subject-of-nobody": f"/subjects/{'ab' * 32}",
    "no-question": "/policy/questions/ab",
}
# What Chromium logs of its own accord about what is meant: pages that are not there, and that a script
# put the focus where the page asks for it.
EXPECTED = re.compile(r"status of (400|401|404)|Autofocus processing was blocked")


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
            lambda message: None if EXPECTED.search(message.text) else troubles.append(message.text),
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_has_an_accessibility_violation(opened, console, width, scheme):
    page = opened(width, scheme)
    look(page, f"sign-in-{width}-{scheme}")
    page.fill("#name", OFFICER)
    page.fill("#password", "not the password of anybody")
    page.keyboard.press("Enter")
    page.wait_for_selector("#problem")
    look(page, f"sign-in-wrong-{width}-{scheme}")
    sign_in(page)
    pseudonym = console.site.pseudonymizer().pseudonym("mrn-0007")
    for name, path in {**PAGES, "subject": f"/subjects/{pseudonym}"}.items():
        page.goto(f"{console.url}{path}")
        # Contrast and sizes are also those of what is folded away.
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        look(page, f"{name}-{width}-{scheme}")


WALKED = ("overview", "search-wrong", "record", "emergencies", "reports", "policy", "account")


def test_pages_are_walked_by_the_tab_key_in_the_order_in_which_they_are_read(opened, console):
    page = sign_in(opened())
    for path in (PAGES[name] for name in WALKED):
        page.goto(f"{console.url}{path}")
        walked = page.evaluate(WALKABLE)
        assert walked[0] == "Skip to content"
        seen = []
        for _ in range(len(walked) + 1):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(FOCUSED))
            if seen[-1] in (None, *seen[:1]) and len(seen) > 1:
                break
        # All of it can be reached, in the order of the page, nothing holds the focus, and it is seen.
        # The walk ends at the browser's own controls or, where it shows none, begins again.
        assert seen[-1] in (None, seen[0]), (path, seen[-3:])
        assert [name for name, _ in seen[:-1]] == walked, path
        assert {outline for _, outline in seen[:-1]} == {"solid"}, path


NAME = "one => one.ariaLabel || one.labels?.[0]?.textContent || one.textContent.trim() || one.name"
WALKABLE = f"""() => {{
  const name = {NAME};
  return [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
    .filter(one => one.type !== 'hidden' && one.checkVisibility({{contentVisibilityAuto: true}}))
    // Of radio buttons that belong together only the chosen one, or the first, is a stop.
    .filter((one, n, all) => one.type !== 'radio' || one.checked
      || all.find(other => other.name === one.name && other.form === one.form) === one
      && !all.some(other => other.name === one.name && other.form === one.form && other.checked))
    // A date has a stop for each of its parts, and one for its calendar.
    .flatMap(one => Array(one.type === 'date' ? 4 : 1).fill(name(one)));
}}"""
FOCUSED = f"""() => {{
  const one = document.activeElement, name = {NAME};
  return one === document.body ? null : [name(one), getComputedStyle(one).outlineStyle];
}}"""


def test_a_page_can_be_used_by_keyboard_alone(opened, console):
    page = sign_in(opened())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
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
    # What changed is said to those who do not see it, by an element that was there before.
    assert "by r.lind" in page.text_content("#said")


def test_what_does_not_fit_is_said_beside_the_filters_and_nothing_typed_is_lost(opened, console):
    page = sign_in(opened())
    page.goto(f"{console.url}/search")
    page.fill("#principal", "Jane Doe")
    with page.expect_response(lambda answer: answer.status == 400):
        page.keyboard.press("Enter")
    page.wait_for_selector("#results [role=alert]")
    assert page.input_value("#principal") == "Jane Doe"
    assert "such as dr.adams" in page.text_content("#results")
    page.goto(f"{console.url}/search?principal=Jane+Doe&outcome=refused")
    described = page.get_attribute("#principal", "aria-describedby")
    assert page.get_attribute("#principal", "aria-invalid") == "true"
    assert "such as dr.adams" in page.text_content(f"#{described}")
    assert page.input_value("#outcome") == "refused"


def test_a_wrong_password_is_said_and_the_focus_is_where_one_goes_on(opened):
    page = opened()
    page.fill("#name", OFFICER)
    page.fill("#password", "not the password of anybody")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert page.title().startswith("Error")
    assert page.evaluate("document.activeElement.id") == "name"
    assert page.get_attribute("#password", "aria-describedby") == "problem"
    sign_in(page)
    page.goto(page.url + "account")
    page.fill("#old", PASSWORD)
    page.fill("#new", "another sentence of some length")
    page.fill("#again", "another sentence of other length")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert page.evaluate("document.activeElement.id") == "again"
    assert page.get_attribute("#again", "aria-invalid") == "true"


def test_nothing_moves_for_those_who_asked_for_less_motion(opened, console):
    moving = """() => [...document.querySelectorAll('*')].filter(one => {
      one.classList.add('htmx-request');
      const style = getComputedStyle(one);
      return style.transitionDuration !== '0s' || style.animationName !== 'none';
    }).length"""
    for motion, moves in (("reduce", False), ("no-preference", True)):
        page = sign_in(opened(reduced_motion=motion))
        page.goto(f"{console.url}/search")
        assert bool(page.evaluate(moving)) is moves


def test_more_records_are_added_without_leaving_the_page(opened, console):
    page = sign_in(opened())
    page.goto(f"{console.url}/search")
    assert page.locator(".records tbody tr:not(.more)").count() == 50
    page.focus("text=Show more")
    page.keyboard.press("Enter")
    page.wait_for_selector(".records tbody tr:nth-child(100)")
    names = [link.get_attribute("href") for link in page.locator(".records tbody .time + td a").all()]
    assert len(set(names)) == 100
    # Whoever goes on by keyboard goes on with the first of what was added.
    assert page.evaluate("document.activeElement.getAttribute('href')") == names[50]


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


def test_pages_print_without_their_menus_and_say_who_printed_them(opened, console):
    from pypdf import PdfReader

    page = sign_in(opened())
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name in ("overview", "search", "record", "policy", "models", "reports"):
        page.goto(f"{console.url}{PAGES[name]}")
        page.emulate_media(media="print")
        for menu in ("nav.pages", ".skip", "button", "form.filters"):
            assert not any(one.is_visible() for one in page.locator(menu).all()), menu
        path = SCREENSHOTS / f"{name}.pdf"
        page.pdf(path=str(path), format="A4")
        # Fonts draw some letters as one.
        text = unicodedata.normalize("NFKC", PdfReader(path).pages[0].extract_text())
        assert f"st-anna \u00b7 printed by {OFFICER}" in text
        assert "1 / " in text
