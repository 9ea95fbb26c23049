"""How a report words records: what they are about, where they stand, and a request's row of a table."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from audit.records import (
    Action,
    AnyRecord,
    ConsoleRecord,
    DeviceRecord,
    ErasureRecord,
    HoldRecord,
    JobRecord,
    Outcome,
    PolicyOutcome,
    PolicyRecord,
    PruneRecord,
    RefusalsRecord,
    ReleaseRecord,
    ReportRecord,
    RequestRecord,
    ReviewRecord,
)
from audit.reports.kind import Cell, Column, OverTime, Series, Style, Table, Tone
from audit.reports.report import Entry, Report
from audit.reports.timeline import timeline

SHORT: Final = 12
BARS_SHOWN: Final = 10
UNKNOWN: Final = "not identified"

Asked = tuple[Entry, RequestRecord]
AskedAny = tuple[Entry, RequestRecord | RefusalsRecord]


def describe(record: AnyRecord) -> str:
    """Return what a record is about, in a few words."""
    match record:
        case RequestRecord():
            return record.action.value
        case RefusalsRecord():
            return f"{record.action.value} refused {record.count} x: {record.problem.value}"
        case DeviceRecord():
            return f"device {record.change.value}"
        case ReleaseRecord():
            return "release published"
        case JobRecord():
            return f"federated {record.kind} {record.state.value}"
        case PolicyRecord():
            refused = " refused" if record.outcome is PolicyOutcome.REFUSED else ""
            return f"policy {record.step.value}{refused}"
        case ReviewRecord():
            return f"review: {record.verdict.value}"
        case ErasureRecord():
            return "pseudonym key destroyed"
        case HoldRecord():
            return f"legal hold {record.change.value}"
        case PruneRecord():
            return "log pruned"
        case ReportRecord():
            return f"report {record.step.value}"
        case ConsoleRecord():
            refused = " refused" if record.problem is not None else ""
            return f"console {record.action.value}{refused}"
        case _:
            return type(record).__struct_config__.tag or "record"


def about(record: AnyRecord) -> str:
    """Return the particulars of a record that is no request."""
    match record:
        case JobRecord():
            cohort = f"cohort {record.cohort} (minimum {record.cohort_minimum})"
            return f"{record.model} v{record.model_version}, {cohort}"
        case DeviceRecord():
            noun = "subject" if record.subjects == 1 else "subjects"
            return f"{record.device}, {record.subjects} {noun}"
        case ReleaseRecord():
            return f"{record.model} v{record.model_version}, SHA-256 {short(record.model_digest)}"
        case PolicyRecord():
            return about_policy(record)
        case ReportRecord():
            digest = f", SHA-256 {short(record.digest)}" if record.digest else ""
            return f"{record.kind or 'any'}{digest}"
        case RefusalsRecord():
            return f"{record.model}, {record.count} requests up to {clock(record.until)}"
        case RequestRecord():
            return f"{record.model}, {record.responses} responses, {record.outcome.value}"
        case ReviewRecord():
            return f"{record.reviewed_log}#{record.reviewed_number}"
        case ConsoleRecord():
            return about_console(record)
        case HoldRecord():
            return record.reference
        case PruneRecord():
            return f"{record.log}, all before record {record.minimum_index}"
        case _:
            return ""


def about_policy(record: PolicyRecord) -> str:
    """Return which bundle a step was about, who signed it, and why it was refused."""
    parts = [f"v{record.version}" if record.version else ""]
    parts.append(f"SHA-256 {short(record.bundle)}" if record.bundle else "")
    parts.append(f"signed by {', '.join(record.approvers)}" if record.approvers else "")
    parts.append(f"back to v{record.restores}: {record.reason}" if record.restores else "")
    parts.append(record.problem.value if record.problem else "")
    return ", ".join(filter(None, parts))


def about_console(record: ConsoleRecord) -> str:
    """Return what somebody looked at in the console, and why they were refused."""
    parts = [f"subject {short(record.subject)}" if record.subject else ""]
    parts.append(plural(len(record.shown), "record") if record.shown else "")
    parts.append(f"report {record.kind}" if record.kind else "")
    parts.append(f"account {record.account}" if record.account else "")
    parts.append(f"from {record.address}" if record.address else "")
    parts.append(record.problem.value if record.problem else "")
    return ", ".join(filter(None, parts))


def is_request(record: AnyRecord) -> bool:
    """Say whether a record is of a request; how a stream ended is none."""
    return isinstance(record, RequestRecord) and record.action is not Action.STREAM_END


def requests(report: Report) -> list[Asked]:
    """Return the entries that are requests through a gateway, each with its record."""
    return [(entry, record) for entry, record in report.of(RequestRecord) if is_request(record)]


def all_requests(report: Report) -> list[AskedAny]:
    """Return the entries that are of requests, also those that refused requests share."""
    return [
        (entry, record)
        for entry in report.entries
        if isinstance(record := entry.record, RequestRecord | RefusalsRecord) and stands_for(record)
    ]


def stands_for(record: AnyRecord) -> int:
    """Return how many requests a record is of."""
    return record.count if isinstance(record, RefusalsRecord) else int(is_request(record))


def total(asked: Iterable[AskedAny]) -> int:
    """Return how many requests entries stand for."""
    return sum(stands_for(record) for _, record in asked)


def tally(
    asked: Iterable[AskedAny], name: Callable[[RequestRecord | RefusalsRecord], str]
) -> Counter[str]:
    """Count requests by what `name` makes of their records."""
    counted: Counter[str] = Counter()
    for _, record in asked:
        counted[name(record)] += stands_for(record)
    return counted


def count(asked: Iterable[AskedAny], *outcomes: Outcome) -> int:
    """Return how many requests ended in one of `outcomes`."""
    return total((entry, record) for entry, record in asked if record.outcome in outcomes)


def most(counts: Iterable[str] | Mapping[str, int]) -> list[tuple[str, int]]:
    """Count values, unless they are counted, most first; past ten, what is left is one number."""
    counted = sorted(Counter(counts).items(), key=lambda item: (-item[1], item[0]))
    if len(counted) <= BARS_SHOWN:
        return counted
    rest = counted[BARS_SHOWN - 1 :]
    others = (f"{len(rest)} others", sum(number for _, number in rest))
    return [*counted[: BARS_SHOWN - 1], others]


def over_time(report: Report, asked: Sequence[AskedAny]) -> list[OverTime]:
    """Return the chart of requests over the period; none where it would show nothing."""
    unit, buckets = timeline((record for _, record in asked), *report.period)
    if not asked or len(buckets) < 2:
        return []
    series = [
        Series("served", Tone.CALM, [bucket.served for bucket in buckets]),
        Series("refused", Tone.CAUTION, [bucket.refused for bucket in buckets]),
        Series("failed or left", Tone.ALERT, [bucket.failed + bucket.abandoned for bucket in buckets]),
    ]
    return [
        OverTime(
            title=f"Requests by {unit.value}",
            labels=[bucket.label for bucket in buckets],
            series=[one for one in series if any(one.values)],
        )
    ]


REQUEST_COLUMNS: Final = (
    Column("Record", 0),
    Column("Time (UTC)", 0),
    Column("Who", 0.9),
    Column("What, about whom", 1.6),
    Column("Ran on", 0.9),
    Column("Outcome, and under what", 1.6, Style.OUTCOME),
)


def request_table(name: str, title: str, asked: Iterable[Asked], empty: str, intro: str = "") -> Table:
    """Return the table that shows each request in a row."""
    return Table(
        name=name,
        title=title,
        columns=REQUEST_COLUMNS,
        rows=[request_row(entry, record) for entry, record in asked],
        intro=intro,
        empty=empty,
    )


def request_row(entry: Entry, record: RequestRecord) -> list[Cell]:
    """Return a request in `REQUEST_COLUMNS`."""
    facts = (shortest(record.subject), record.data_class, record.jurisdiction, record.purpose)
    outcome = [record.outcome.value]
    outcome += [record.problem.value] if record.problem else []
    outcome += [flag.value for flag in record.flags]
    with_ = f"with {', '.join(record.obligations)}" if record.obligations else ""
    return [
        where(entry),
        clock(record.time),
        lines(record.principal or UNKNOWN, ", ".join(record.roles)),
        lines(f"{record.action.value} {model(record)}".strip(), " ".join(filter(None, facts))),
        record.placement or "",
        lines(" \u00b7 ".join(outcome), ", ".join(record.policies), with_),
    ]


def model(record: RequestRecord) -> str:
    """Return a request's model and its version."""
    return f"{record.model} v{record.model_version or '?'}" if record.model else ""


def place_name(placement: str | None) -> str:
    """Return a placement for a chart; devices are one, since each holds its own data."""
    name = placement or "none"
    return "devices" if name.startswith("device:") else name


def lines(*parts: str) -> Cell:
    """Return a cell of those parts that say something."""
    said = [part for part in parts if part]
    return said if len(said) > 1 else "".join(said)


def where(entry: Entry) -> str:
    """Return what a report calls a record: the last part of its log's name, and its index."""
    return f"{entry.origin.rpartition('/')[2]}#{entry.index}"


def short(digest: str) -> str:
    """Return the beginning of a digest or a pseudonym."""
    return f"{digest[:SHORT]}\u2026"


def shortest(digest: str | None) -> str:
    """Return the beginning of a digest, or nothing where there is none."""
    return short(digest) if digest else ""


def clock(time: datetime) -> str:
    """Return a time in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def plural(number: int, noun: str) -> str:
    """Return a number and its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
