"""Refused requests: who was refused, why, and by which policy."""

from collections import defaultdict
from datetime import UTC, date
from typing import Final

from audit.records import AnyRecord, Outcome, Problem, RefusalsRecord, RequestRecord
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.words import (
    UNKNOWN,
    all_requests,
    clock,
    lines,
    most,
    over_time,
    request_table,
    requests,
    tally,
    total,
)

_TOKENS: Final = frozenset({Problem.TOKEN_EXPIRED, Problem.TOKEN_INVALID, Problem.TOKEN_MISSING})


def figures(report: Report) -> list[Figure]:
    """Return how many requests were refused, and by what."""
    asked = [record for _, record in requests(report)]
    every = all_requests(report)
    policy = sum(record.problem is Problem.POLICY_REFUSED for record in asked)
    tokens = sum(record.problem in _TOKENS for record in asked)
    no_room = total(one for one in every if one[1].problem is Problem.OVERLOADED)
    return [
        Figure("refused", total(every), Tone.CAUTION),
        Figure("by policy", policy, Tone.ALERT),
        Figure("no valid token", tokens, Tone.CAUTION),
        Figure("no room", no_room),
        Figure("otherwise", total(every) - policy - tokens - no_room),
        Figure("principals", len({record.principal for _, record in every} - {None})),
        Figure("subjects", len({record.subject for record in asked} - {None})),
    ]


def charts(report: Report) -> list[Chart]:
    """Return refusals over time, by reason and by principal."""
    asked = all_requests(report)
    reasons = tally(asked, lambda one: one.problem.value if one.problem else "none")
    return [
        *over_time(report, asked),
        Bars(title="Why", rows=most(reasons)),
        Bars(title="Who was refused", rows=most(tally(asked, lambda one: one.principal or UNKNOWN))),
    ]


def tables(report: Report) -> list[Table]:
    """Return refusals by policy, those that share a record, and every one that has its own."""
    asked = requests(report)
    refused: dict[str, list[RequestRecord]] = defaultdict(list)
    for _, record in asked:
        for policy in record.policies:
            refused[policy].append(record)
    return [
        Table(
            name="policies",
            title="Policies that refused",
            columns=(
                Column("Policy", 2),
                Column("First (UTC)", 0),
                Column("Last (UTC)", 0),
                Column("Principals", 0, Style.NUMBER),
                Column("Refusals", 0, Style.NUMBER),
            ),
            rows=[
                [
                    policy,
                    clock(records[0].time),
                    clock(records[-1].time),
                    str(len({record.principal for record in records})),
                    str(len(records)),
                ]
                for policy, records in sorted(refused.items(), key=lambda item: -len(item[1]))
            ],
            empty="No policy refused a request.",
        ),
        _full_doors(report),
        request_table(
            "requests",
            "Every refused request with a record of its own",
            asked,
            "No request was refused by itself.",
        ),
    ]


def _full_doors(report: Report) -> Table:
    alike: dict[tuple[date, str, str, str], list[RefusalsRecord]] = defaultdict(list)
    for _, record in report.of(RefusalsRecord):
        day = record.time.astimezone(UTC).date()
        alike[day, record.principal, record.action.value, record.model].append(record)
    return Table(
        name="full-doors",
        title="Refused at a full door",
        intro="What one caller asked of one model on one day (UTC); many such requests share a record.",
        columns=(
            Column("First (UTC)", 0),
            Column("Last (UTC)", 0),
            Column("Who", 1.2),
            Column("What", 1.2),
            Column("Records", 0, Style.NUMBER),
            Column("Requests", 0, Style.NUMBER),
        ),
        rows=[
            [
                clock(records[0].time),
                clock(max(record.until for record in records)),
                lines(who, ", ".join(sorted({role for one in records for role in one.roles}))),
                f"{action} {model}",
                str(len(records)),
                str(sum(record.count for record in records)),
            ]
            for (_, who, action, model), records in alike.items()
        ],
        empty="No model's door was found full.",
    )


def _refused(record: AnyRecord) -> bool:
    if isinstance(record, RequestRecord):
        return record.outcome is Outcome.REFUSED or record.problem is Problem.OVERLOADED
    return isinstance(record, RefusalsRecord)


REFUSALS: Final = Kind(
    name="refusals",
    title="Refused requests",
    subtitle="Who was refused, why, and by which policy",
    basis=("45 CFR 164.308(a)(1)(ii)(D)", "45 CFR 164.312(a)(1)"),
    shows=_refused,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        (
            "Refused is what the caller could have asked otherwise (HTTP status 4xx): by policy, "
            "without a valid token, malformed, too large, or too often; and what the site had no room "
            "for (503), which counts as failed elsewhere. What else failed on the site's side is "
            "not here. Of a caller without a valid token, nothing that they typed is recorded."
        ),
    ),
)
