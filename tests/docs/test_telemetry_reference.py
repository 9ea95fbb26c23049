"""The reference of telemetry lists every log message, announcement and attribute, and no other."""

import ast
import re
from pathlib import Path

from audit.export.fields import ATTRIBUTES
from bedside.telemetry.catalogue import MESSAGES, Kind
from bedside.telemetry.describe import SPOKEN
from bedside.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/telemetry.md"
SHOWN = {
    Kind.NUMBER: "number",
    Kind.WORD: "word",
    Kind.NAME: "name",
    Kind.RECORD: "record",
    Kind.TYPE: "type",
    Kind.CODE: "function",
    Kind.ERROR: "error",
}


def section(title):
    _, found, rest = PAGE.read_text().partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


def rows(title):
    return re.findall(r"^\| `(.+?)` \| (.*?) \|$", section(title), re.MULTILINE)


def shown(text, kinds):
    """A message as the page shows it: each part as its kind, in braces."""
    parts = iter(kinds)
    return re.sub(r"%(?:\.\d)?[sdf]", lambda _: f"{{{SHOWN[next(parts)]}}}", text)


def test_every_log_message_is_listed_and_no_other():
    listed = [(name, text.strip("`")) for name, text in rows("Log messages")]
    made = [(name, shown(*message)) for name, texts in MESSAGES.items() for message in texts.items()]
    assert listed == sorted(made)


def test_every_attribute_that_is_exported_is_listed_and_no_other():
    assert re.findall(r"`(bedside\.[\w.]+)`", section("Attributes")) == [
        "bedside.entry.log",
        "bedside.entry.number",
        *(f"bedside.{name}" for name in sorted(ATTRIBUTES)),
    ]


def test_every_error_that_may_speak_is_listed_and_no_other():
    assert sorted(re.findall(r"`([A-Z]\w+)`", section("Errors"))) == sorted(
        name.rpartition(".")[2] for name in SPOKEN
    )


def test_every_metric_is_in_the_reference_of_metrics():
    page = (ROOT / "docs/reference/metrics.md").read_text()
    named = {
        name.removesuffix("_total") for name in re.findall(r"^\| `(bedside_\w+)`", page, re.MULTILINE)
    }
    assert named == set(METRICS)


def test_every_announcement_is_listed_and_no_other():
    said = set()
    for path in (ROOT / "bedside").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "telemetry.say",
                "telemetry.announce",
            ):
                said.add(re.split(r"[{:,(]", ast.unparse(node.args[0]).lstrip("f'\""))[0].strip("'\" "))
    listed = {text.partition("{")[0].rstrip(": ,(") for text, _ in rows("Standard output")}
    assert listed == said
