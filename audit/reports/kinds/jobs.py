"""Federated jobs: what was asked of which cohort, and how it ended."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from audit.records import AnyRecord, JobRecord, JobState
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Entry, Report
from audit.reports.words import UNKNOWN, clock, lines, most, where

# What the pack `research` counts answers in.
PERIOD_DAYS: Final = 30

_ENDED: Final = frozenset({JobState.DONE, JobState.FAILED, JobState.REFUSED})


def _jobs(report: Report) -> list[list[tuple[Entry, JobRecord]]]:
    """Return the records of each job, in order of the first."""
    found: dict[object, list[tuple[Entry, JobRecord]]] = {}
    for entry, record in report.of(JobRecord):
        found.setdefault(record.id, []).append((entry, record))
    return list(found.values())


def figures(report: Report) -> list[Figure]:
    """Return how many jobs there were, and how they ended."""
    last = [records[-1][1] for records in _jobs(report)]
    states = [record.state for record in last]
    small = [r for r in last if r.state is JobState.DONE and r.cohort < r.cohort_minimum]
    return [
        Figure("jobs", len(last)),
        Figure("done", states.count(JobState.DONE), Tone.CALM),
        Figure("refused", states.count(JobState.REFUSED), Tone.CAUTION),
        Figure("failed", states.count(JobState.FAILED), Tone.ALERT),
        Figure("not ended", sum(state not in _ENDED for state in states)),
        Figure("too small", len(small), Tone.ALERT),
    ]


def charts(report: Report) -> list[Chart]:
    """Return jobs by who asked, and cohorts by model."""
    last = [records[-1][1] for records in _jobs(report)]
    return [
        Bars(title="Who asked", rows=most(record.principal or UNKNOWN for record in last)),
        Bars(
            title="Jobs by model",
            rows=most(f"{record.model} v{record.model_version}" for record in last),
        ),
    ]


def tables(report: Report) -> list[Table]:
    """Return how many answers were given about each release, and every job."""
    rows: list[list[str | list[str]]] = []
    for records in _jobs(report):
        (entry, first), (_, last) = records[0], records[-1]
        ended = clock(last.time) if last.state in _ENDED else ""
        rows.append(
            [
                where(entry),
                lines(clock(first.time), ended),
                lines(first.kind, f"{first.model} v{first.model_version}"),
                first.principal or UNKNOWN,
                str(last.cohort),
                str(last.cohort_minimum),
                lines(last.state.value, ", ".join(last.policies)),
            ]
        )
    return [
        _answers(report),
        Table(
            name="jobs",
            title="Every job",
            columns=(
                Column("Record", 0),
                Column("Asked, ended (UTC)", 0),
                Column("What", 1.4),
                Column("By"),
                Column("Cohort", 0, Style.NUMBER),
                Column("Minimum", 0, Style.NUMBER),
                Column("State, by which policies", 1.4, Style.OUTCOME),
            ),
            rows=rows,
            empty="No federated job was asked for.",
        ),
    ]


def _answers(report: Report) -> Table:
    given: dict[str, list[JobRecord]] = {}
    for _, record in report.of(JobRecord):
        if record.state is JobState.DONE:
            given.setdefault(f"{record.model} v{record.model_version}", []).append(record)
    return Table(
        name="answers",
        title="Answers about each release",
        columns=(
            Column("Release"),
            Column("Answers", 0, Style.NUMBER),
            Column(f"Most in {PERIOD_DAYS} days", 0, Style.NUMBER),
            Column("Smallest cohort", 0, Style.NUMBER),
            Column("First, last (UTC)", 0),
        ),
        rows=[
            [
                release,
                str(len(answers)),
                str(most_within([answer.time for answer in answers])),
                str(min(answer.cohort for answer in answers)),
                lines(clock(answers[0].time), clock(answers[-1].time)),
            ]
            for release, answers in sorted(given.items())
        ],
        empty="No answer was given.",
    )


def most_within(times: Sequence[datetime]) -> int:
    """Return how many of `times`, which are in order, lie in the busiest period."""
    period = timedelta(days=PERIOD_DAYS)
    return max(bisect_left(times, start + period) - n for n, start in enumerate(times))


def _shows(record: AnyRecord) -> bool:
    return isinstance(record, JobRecord)


JOBS: Final = Kind(
    name="jobs",
    title="Federated jobs",
    subtitle="What was asked of which cohort, and how it ended",
    basis=("GDPR Art. 89(1)", "45 CFR 164.514(a)"),
    shows=_shows,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        "A cohort counts the devices whose sums returned; below the minimum, nothing is returned.",
        (
            "Where policies bound the answers about a release in a period, further jobs are refused "
            "until the oldest is older. That is a count and no privacy budget in the sense of "
            "differential privacy: no noise is added to the sums, so this report cannot say what an "
            "observer of many answers could infer from them."
        ),
    ),
)
