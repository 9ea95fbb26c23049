"""Reports that somebody asked for, and how far they are."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from audit.records import Outcome
from audit.reports import KINDS
from audit.reports.package import EVENTS
from console.words import clock, plural
from coordinator.reports.desk import Ordered
from coordinator.reports.shelf import State

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
TONES: Final = {State.DONE: "calm", State.FAILED: "alert"}


class OrderRow(Struct, frozen=True, kw_only=True):
    """One report: `forms` are (path, title) of its files once it is made."""

    title: str
    asked: str
    filters: str
    state: str
    tone: str
    step: str
    percent: int
    ended: bool
    forms: tuple[tuple[str, str], ...]
    found: str
    record: str


class Kept(Struct, frozen=True, kw_only=True):
    """What stays in the form when something else in it was wrong: only values that it offers."""

    kind: str = next(iter(KINDS))
    since: str = ""
    until: str = ""
    outcome: str = ""


def kept_of(fields: Mapping[str, Sequence[str]]) -> Kept:
    """Return what fits of a form that does not; whom it is about is typed again."""
    given = {name: (fields.get(name) or [""])[0] for name in Kept.__struct_fields__}
    return Kept(
        kind=given["kind"] if given["kind"] in KINDS else Kept().kind,
        since=given["since"] if _DAY.fullmatch(given["since"]) else "",
        until=given["until"] if _DAY.fullmatch(given["until"]) else "",
        outcome=given["outcome"] if given["outcome"] in tuple(Outcome) else "",
    )


def order_row(ordered: Ordered) -> OrderRow:
    """Return what is shown of an order."""
    made, filters = ordered.made, ordered.order.filters
    forms = ["zip", "pdf", "csv", "json"]
    if made is not None and EVENTS in made.files:
        forms.append("fhir")
    said = [f"since {filters.since:%Y-%m-%d}" if filters.since else ""]
    said.append(f"before {filters.until:%Y-%m-%d}" if filters.until else "")
    said.append(f"by {filters.principal}" if filters.principal else "")
    said.append("about one person" if filters.subject else "")
    said.append(filters.outcome.value if filters.outcome else "")
    return OrderRow(
        title=ordered.order.kind.title,
        asked=clock(ordered.asked),
        filters=", ".join(filter(None, said)) or "everything",
        state=ordered.state.value,
        tone=TONES.get(ordered.state, "plain"),
        step=ordered.failure.detail if ordered.failure else ordered.step,
        percent=int(100 * ordered.share),
        ended=ordered.ended,
        forms=tuple((f"/reports/{ordered.id}/{form}", form.upper()) for form in forms) if made else (),
        found=plural(made.records, "record") if made else "",
        record=made.place if made else "",
    )
