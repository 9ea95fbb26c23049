"""The information system activity review: what was done, by whom, and what stands out."""

from collections import defaultdict
from typing import Final

from audit.records import AnyRecord, Flag, Outcome, RequestRecord
from audit.reports.anomalies import RULES, find
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.words import (
    UNKNOWN,
    clock,
    count,
    is_request,
    lines,
    most,
    over_time,
    requests,
)


def figures(report: Report) -> list[Figure]:
    """Return how much was done, and how much of it stands out."""
    asked = requests(report)
    glass = sum(Flag.BREAK_GLASS in record.flags for _, record in asked)
    return [
        Figure("findings", len(find(asked, report.hours)), Tone.ALERT),
        Figure("requests", len(asked)),
        Figure("refused", count(asked, Outcome.REFUSED), Tone.CAUTION),
        Figure("failed, left", count(asked, Outcome.FAILED, Outcome.ABANDONED), Tone.ALERT),
        Figure("break-glass", glass, Tone.ALERT),
        Figure("principals", len({record.principal for _, record in asked} - {None})),
    ]


def charts(report: Report) -> list[Chart]:
    """Return requests over time, by principal and by what was asked."""
    asked = requests(report)
    return [
        *over_time(report, asked),
        Bars(title="Who asked", rows=most(record.principal or UNKNOWN for _, record in asked)),
        Bars(title="What for", rows=most(record.action.value for _, record in asked)),
    ]


def tables(report: Report) -> list[Table]:
    """Return the findings, the rules that made them, and the activity of each principal."""
    asked = requests(report)
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
    by_whom: dict[str, list[RequestRecord]] = defaultdict(list)
    for _, record in requests(report):
        by_whom[record.principal or UNKNOWN].append(record)
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
            Column("Requests", 0, Style.NUMBER),
        ),
        rows=[
            [
                lines(who, ", ".join(sorted({role for one in records for role in one.roles}))),
                clock(records[0].time),
                clock(records[-1].time),
                str(len({one.time.date() for one in records})),
                str(len({one.subject for one in records} - {None})),
                str(sum(Flag.BREAK_GLASS in one.flags for one in records)),
                str(sum(one.outcome is Outcome.REFUSED for one in records)),
                str(len(records)),
            ]
            for who, records in sorted(by_whom.items(), key=lambda item: (-len(item[1]), item[0]))
        ],
        empty="Nothing was asked.",
    )


def _shows(record: AnyRecord) -> bool:
    return is_request(record)


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
