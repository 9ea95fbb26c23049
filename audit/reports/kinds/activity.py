"""The information system activity review: what was done, by whom, and what stands out."""

from collections import defaultdict
from typing import Final

from audit.records import AnyRecord, Flag, Outcome, RefusalsRecord, RequestRecord
from audit.reports.anomalies import RULES, find
from audit.reports.kind import Bars, Cell, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.words import (
    UNKNOWN,
    AskedAny,
    all_requests,
    clock,
    count,
    lines,
    most,
    over_time,
    requests,
    stands_for,
    tally,
    total,
)


def figures(report: Report) -> list[Figure]:
    """Return how much was done, and how much of it stands out."""
    asked = all_requests(report)
    glass = sum(Flag.BREAK_GLASS in record.flags for _, record in requests(report))
    return [
        Figure("findings", len(find(asked, report.hours)), Tone.ALERT),
        Figure("requests", total(asked)),
        Figure("refused", count(asked, Outcome.REFUSED), Tone.CAUTION),
        Figure("failed, left", count(asked, Outcome.FAILED, Outcome.ABANDONED), Tone.ALERT),
        Figure("break-glass", glass, Tone.ALERT),
        Figure("principals", len({record.principal for _, record in asked} - {None})),
    ]


def charts(report: Report) -> list[Chart]:
    """Return requests over time, by principal and by what was asked."""
    asked = all_requests(report)
    return [
        *over_time(report, asked),
        Bars(title="Who asked", rows=most(tally(asked, lambda one: one.principal or UNKNOWN))),
        Bars(title="What for", rows=most(tally(asked, lambda one: one.action.value))),
    ]


def tables(report: Report) -> list[Table]:
    """Return the findings, the rules that made them, and the activity of each principal."""
    asked = all_requests(report)
    return [
        Table(
            name="findings",
            title="Findings",
            intro="Each is a reason to look, not a verdict.",
            columns=(
                Column("Rule", 1.1),
                Column("Who"),
                Column("From (UTC)", 0),
                Column("Numbers", 1.7),
                Column("Records", 1.2),
            ),
            rows=[
                [one.rule, one.principal, one.since, one.numbers, one.records]
                for one in find(asked, report.hours)
            ],
            empty="The rules below found nothing.",
        ),
        Table(
            name="rules",
            title="The rules",
            intro=f"Working hours of the site: {report.hours}.",
            columns=(Column("Rule", 0.28), Column("Finds")),
            rows=[list(rule.split(": ", 1)) for rule in RULES],
        ),
        _principals(report),
    ]


def _principals(report: Report) -> Table:
    by_whom: dict[str, list[AskedAny]] = defaultdict(list)
    for entry, record in all_requests(report):
        by_whom[record.principal or UNKNOWN].append((entry, record))
    return Table(
        name="principals",
        title="Activity of each principal",
        columns=(
            Column("Who", 1.6),
            Column("First (UTC)", 0),
            Column("Last (UTC)", 0),
            Column("Days", 0, Style.NUMBER),
            Column("Subjects", 0, Style.NUMBER),
            Column("Break-glass", 0, Style.NUMBER),
            Column("Refused", 0, Style.NUMBER),
            Column("Door full", 0, Style.NUMBER),
            Column("Requests", 0, Style.NUMBER),
        ),
        rows=[
            _principal(who, asked)
            for who, asked in sorted(by_whom.items(), key=lambda item: (-total(item[1]), item[0]))
        ],
        empty="Nothing was asked.",
    )


def _principal(who: str, asked: list[AskedAny]) -> list[Cell]:
    own = [record for _, record in asked if isinstance(record, RequestRecord)]
    shared = [one for one in asked if isinstance(one[1], RefusalsRecord)]
    times = [record.time for _, record in asked]
    return [
        lines(who, ", ".join(sorted({role for _, record in asked for role in record.roles}))),
        clock(times[0]),
        clock(times[-1]),
        str(len({time.date() for time in times})),
        str(len({one.subject for one in own} - {None})),
        str(sum(Flag.BREAK_GLASS in one.flags for one in own)),
        str(sum(one.outcome is Outcome.REFUSED for one in own)),
        str(total(shared)),
        str(total(asked)),
    ]


def _shows(record: AnyRecord) -> bool:
    return stands_for(record) > 0


ACTIVITY: Final = Kind(
    name="activity",
    title="Information system activity review",
    subtitle="What was done, by whom, and what stands out",
    basis=("45 CFR 164.308(a)(1)(ii)(D)",),
    shows=_shows,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        (
            "The rules see this report's period and filters only: a longer period knows more "
            "about what is usual. What they do not find is not thereby in order."
        ),
    ),
)
