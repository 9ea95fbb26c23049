"""Pages in a browser: what axe-core finds wrong with them, and pictures of them."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
AXE = (TESTS / "console/vendored/axe-4.14.1.min.js").read_text()
SCREENSHOTS = TESTS.parent / "build/screenshots"
# WCAG 2.2 at level AA is these; best practices are axe's own, and kept too. Axe leaves target sizes
# (WCAG 2.5.8) out unless they are asked for.
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"target-size": {"enabled": True}},
}


def violations(page):
    page.evaluate(AXE)
    found = page.evaluate(
        "rules => axe.run(document, rules).then(found => found.violations.map("
        "one => one.id + ': ' + one.nodes.map(node => node.html).join(' | ')))",
        RULES,
    )
    return [one[:400] for one in found]


def look(page, name):
    """Keep a picture of the page, and see that it can be used."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)
    assert "\n".join(violations(page)) == "", name
    # Nothing is cut off sideways at any width (WCAG 1.4.10).
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
