"""Refused requests: who was refused, why, and by which policy."""

from collections import defaultdict
from typing import Final

from audit.records import AnyRecord, Outcome, Problem, RequestRecord
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.words import UNKNOWN, clock, most, over_time, request_table, requests

_TOKENS: Final = frozenset({Problem.TOKEN_EXPIRED, Problem.TOKEN_INVALID, Problem.TOKEN_MISSING})


def figures(report: Report) -> list[Figure]:
    """Return how many requests were refused, and by what."""
    asked = [record for _, record in requests(report)]
    policy = sum(record.problem is Problem.POLICY_REFUSED for record in asked)
    tokens = sum(record.problem in _TOKENS for record in asked)
    return [
        Figure("refused", len(asked), Tone.CAUTION),
        Figure("by policy", policy, Tone.ALERT),
        Figure("no valid token", tokens, Tone.CAUTION),
        Figure("otherwise", len(asked) - policy - tokens),
        Figure("principals", len({record.principal for record in asked} - {None})),
        Figure("subjects", len({record.subject for record in asked} - {None})),
    ]


def charts(report: Report) -> list[Chart]:
    """Return refusals over time, by reason and by principal."""
    asked = requests(report)
    reasons = most(record.problem.value if record.problem else "none" for _, record in asked)
    return [
        *over_time(report, asked),
        Bars(title="Why", rows=reasons),
        Bars(title="Who was refused", rows=most(record.principal or UNKNOWN for _, record in asked)),
    ]


def tables(report: Report) -> list[Table]:
    """Return refusals by policy, and every one."""
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
        request_table("requests", "Every refused request", asked, "No request was refused."),
    ]


def _refused(record: AnyRecord) -> bool:
    return isinstance(record, RequestRecord) and record.outcome is Outcome.REFUSED


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
            "without a valid token, malformed, too large, or too often. What failed on the site's "
            "side is not here. Of a caller without a valid token, nothing that they typed is "
            "recorded."
        ),
    ),
)
