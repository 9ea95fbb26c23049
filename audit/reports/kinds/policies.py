"""Policy changes: drafts, signatures, publications and rollbacks, and who asked what of policies."""

from collections import Counter
from typing import Final

from audit.records import AnyRecord, PolicyOutcome, PolicyRecord, PolicyStep
from audit.reports.kind import Bars, Cell, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Entry, Report
from audit.reports.words import clock, lines, most, shortest, where

_CHANGES: Final = frozenset(
    {
        PolicyStep.DRAFT,
        PolicyStep.SIGN,
        PolicyStep.PUBLISH,
        PolicyStep.ROLLBACK,
        PolicyStep.LOAD,
        PolicyStep.SHADOW_START,
        PolicyStep.SHADOW_STOP,
    }
)
_IN_FORCE: Final = frozenset({PolicyStep.PUBLISH, PolicyStep.ROLLBACK})


def _done(record: PolicyRecord, *steps: PolicyStep) -> bool:
    return record.step in steps and record.outcome is PolicyOutcome.DONE


def figures(report: Report) -> list[Figure]:
    """Return how often policies changed."""
    steps = [record for _, record in report.of(PolicyRecord)]
    refused = sum(record.outcome is PolicyOutcome.REFUSED for record in steps)
    return [
        Figure("published", sum(_done(step, PolicyStep.PUBLISH) for step in steps), Tone.CALM),
        Figure("rolled back", sum(_done(step, PolicyStep.ROLLBACK) for step in steps), Tone.CAUTION),
        Figure("drafts", sum(_done(step, PolicyStep.DRAFT) for step in steps)),
        Figure("signatures", sum(_done(step, PolicyStep.SIGN) for step in steps)),
        Figure("steps refused", refused, Tone.ALERT),
        Figure("questions", sum(step.step not in _CHANGES for step in steps)),
    ]


def charts(report: Report) -> list[Chart]:
    """Return which steps were taken, and by whom."""
    steps = [record for _, record in report.of(PolicyRecord)]
    return [
        Bars(title="Steps", rows=most(step.step.value for step in steps)),
        Bars(title="Who asked", rows=most(step.principal or "command line" for step in steps)),
    ]


def tables(report: Report) -> list[Table]:
    """Return what came into force, every step, and the questions asked."""
    steps = report.of(PolicyRecord)
    questions = Counter(
        (record.principal or "command line", record.step.value, record.outcome.value)
        for _, record in steps
        if record.step not in _CHANGES
    )
    columns = (
        Column("Record", 0),
        Column("Time (UTC)", 0),
        Column("Step", 0.9),
        Column("Bundle", 1.1),
        Column("Signed by", 1.1),
        Column("Asked by", 0.9),
        Column("Outcome", 1.1, Style.OUTCOME),
    )
    return [
        Table(
            name="in-force",
            title="What came into force",
            columns=columns,
            rows=[_row(entry, record) for entry, record in steps if _done(record, *_IN_FORCE)],
            empty="No bundle was published or rolled back.",
        ),
        Table(
            name="changes",
            title="Every step of a change",
            columns=columns,
            rows=[_row(entry, record) for entry, record in steps if record.step in _CHANGES],
            empty="No step was taken.",
        ),
        Table(
            name="questions",
            title="Questions asked of policies",
            columns=(
                Column("Who", 1.4),
                Column("Question"),
                Column("Outcome"),
                Column("Times", 0, Style.NUMBER),
            ),
            rows=[[*what, str(number)] for what, number in sorted(questions.items())],
            empty="None.",
        ),
    ]


def _row(entry: Entry, record: PolicyRecord) -> list[Cell]:
    version = f"v{record.version}" if record.version is not None else ""
    restores = f"back to v{record.restores}" if record.restores is not None else ""
    return [
        where(entry),
        clock(record.time),
        lines(record.step.value, restores, record.reason.value if record.reason else ""),
        lines(version, shortest(record.bundle)),
        ", ".join(record.approvers),
        record.principal or "command line",
        lines(record.outcome.value, record.problem.value if record.problem else ""),
    ]


def _shows(record: AnyRecord) -> bool:
    return isinstance(record, PolicyRecord)


POLICIES: Final = Kind(
    name="policies",
    title="Policy changes",
    subtitle="Which rules came into force, who approved them, and what was refused on the way",
    basis=("45 CFR 164.316(b)(1)", "GDPR Art. 24(1)"),
    shows=_shows,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        (
            "A bundle is named by its version and the beginning of its SHA-256 digest; the digest "
            "covers every policy in it. A step without a principal was taken at the site's own "
            "command line."
        ),
    ),
)
