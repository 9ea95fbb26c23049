"""Whether everybody can use a page, as axe-core finds it: WCAG 2.2 AA and axe's best practices."""

from pathlib import Path

AXE = (Path(__file__).parents[1] / "console/vendored/axe-4.14.1.min.js").read_text()
# Axe leaves target sizes (WCAG 2.5.8) out unless they are asked for.
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
