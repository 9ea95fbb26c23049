"""The break-glass review: every emergency, whether somebody reviewed it, who, and with what verdict."""

from datetime import timedelta
from typing import Final

from audit.records import AnyRecord, Flag, Outcome, RequestRecord, ReviewRecord, ReviewVerdict
from audit.reports.filters import Filters
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Entry, Report
from audit.reports.words import UNKNOWN, clock, lines, model, most, plural, requests, shortest, where

_DAY: Final = timedelta(days=1)

Review = tuple[Entry, ReviewRecord]


def _reviews(report: Report) -> dict[tuple[str, int], Review]:
    """Return the first review of each record that was reviewed."""
    found: dict[tuple[str, int], Review] = {}
    for entry, record in report.of(ReviewRecord):
        found.setdefault((record.reviewed_log, record.reviewed_number), (entry, record))
    return found


def _state(entry: Entry, record: RequestRecord, reviews: dict[tuple[str, int], Review]) -> str:
    if record.outcome is Outcome.REFUSED:
        return "refused, nothing to review"
    review = reviews.get((entry.origin, entry.index))
    return review[1].verdict.value if review else "waiting"


def figures(report: Report) -> list[Figure]:
    """Return how many emergencies there were and where their review stands."""
    reviews = _reviews(report)
    states = [_state(entry, record, reviews) for entry, record in requests(report)]
    verdicts = [state for state in states if state in set(ReviewVerdict)]
    return [
        Figure("emergencies", len(states)),
        Figure("signed off", len(verdicts), Tone.CALM),
        Figure("waiting", states.count("waiting"), Tone.ALERT),
        Figure("unjustified", states.count(ReviewVerdict.UNJUSTIFIED), Tone.ALERT),
        Figure("escalated", states.count(ReviewVerdict.ESCALATED), Tone.CAUTION),
        Figure("subjects", len({record.subject for _, record in requests(report)} - {None})),
    ]


def charts(report: Report) -> list[Chart]:
    """Return who declared emergencies, and what came out."""
    reviews = _reviews(report)
    asked = requests(report)
    return [
        Bars(title="Who declared one", rows=most(record.principal or UNKNOWN for _, record in asked)),
        Bars(
            title="What came out",
            rows=most(_state(entry, record, reviews) for entry, record in asked),
        ),
    ]


def tables(report: Report) -> list[Table]:
    """Return what waits for review, and what was reviewed."""
    reviews = _reviews(report)
    asked = requests(report)
    waiting = [one for one in asked if _state(*one, reviews) == "waiting"]
    others = [one for one in asked if _state(*one, reviews) != "waiting"]
    return [
        _table(report, "waiting", "Waiting for review", waiting, reviews),
        _table(report, "reviewed", "Reviewed, or refused", others, reviews),
    ]


def _table(
    report: Report,
    name: str,
    title: str,
    asked: list[tuple[Entry, RequestRecord]],
    reviews: dict[tuple[str, int], Review],
) -> Table:
    return Table(
        name=name,
        title=title,
        columns=(
            Column("Record", 0),
            Column("Time (UTC)", 0),
            Column("Who declared it"),
            Column("What, about whom", 1.3),
            Column("Outcome", 1.1, Style.OUTCOME),
            Column("Review", 1.3),
        ),
        rows=[
            [
                where(entry),
                clock(record.time),
                lines(record.principal or UNKNOWN, ", ".join(record.roles)),
                lines(model(record), shortest(record.subject)),
                lines(record.outcome.value, record.placement or "", ", ".join(record.policies)),
                _review_cell(report, entry, record, reviews),
            ]
            for entry, record in asked
        ],
        empty="None.",
    )


def _review_cell(
    report: Report, entry: Entry, record: RequestRecord, reviews: dict[tuple[str, int], Review]
) -> str | list[str]:
    review = reviews.get((entry.origin, entry.index))
    state = _state(entry, record, reviews)
    if review is None:
        waited = plural((report.created - record.time) // _DAY, "day")
        return f"waiting for {waited}" if state == "waiting" else state
    at, made = review
    return lines(state, f"by {made.principal}", f"{clock(made.time)}, {where(at)}")


def _keeps(record: AnyRecord, filters: Filters) -> bool:
    # A review comes after the request, by another principal and maybe after the period.
    if isinstance(record, ReviewRecord):
        return filters.since is None or record.time >= filters.since
    return filters.choose(record)


def _shows(record: AnyRecord) -> bool:
    if isinstance(record, ReviewRecord):
        return True
    return isinstance(record, RequestRecord) and Flag.BREAK_GLASS in record.flags


BREAK_GLASS: Final = Kind(
    name="break-glass",
    title="Break-glass review",
    subtitle="Every emergency that was declared, and whether somebody else reviewed it",
    basis=("45 CFR 164.312(a)(2)(ii)", "45 CFR 164.308(a)(1)(ii)(D)"),
    shows=_shows,
    keeps=_keeps,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        (
            "Reviews are taken into account whenever they were made, up to the logs' checkpoints. "
            "Nobody can review what they asked for themselves, and the first review stands."
        ),
    ),
)
