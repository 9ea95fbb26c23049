"""The access report: who asked what about whom, where it ran, under which policy."""

from collections import Counter
from typing import Final

from audit.records import Flag, Outcome
from audit.reports.fhir import access_events
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.sent import ran
from audit.reports.words import (
    about,
    all_requests,
    clock,
    count,
    describe,
    is_request,
    most,
    over_time,
    place_name,
    request_table,
    requests,
    total,
    where,
)

_DEVICE: Final = "device:"


def figures(report: Report) -> list[Figure]:
    """Return how many requests there were, and how they ended."""
    asked = requests(report)
    every = all_requests(report)
    glass = sum(Flag.BREAK_GLASS in record.flags for _, record in asked)
    return [
        Figure("requests", total(every)),
        Figure("served", count(asked, Outcome.SERVED), Tone.CALM),
        Figure("refused", count(asked, Outcome.REFUSED), Tone.CAUTION),
        Figure("failed, left", count(every, Outcome.FAILED, Outcome.ABANDONED), Tone.ALERT),
        Figure("break-glass", glass, Tone.ALERT),
        Figure("subjects", len({record.subject for _, record in asked} - {None})),
    ]


def charts(report: Report) -> list[Chart]:
    """Return requests over time, where they ran and what decided them."""
    asked = requests(report)
    return [
        *over_time(report, all_requests(report)),
        Bars(
            title="Where served requests ran",
            rows=most(place_name(record.placement) for _, record in asked if ran(record)),
            empty="No request was served.",
        ),
        Bars(
            title="Policies that determined the decisions",
            rows=most(policy for _, record in asked for policy in record.policies),
            empty="No policy was asked.",
        ),
    ]


def tables(report: Report) -> list[Table]:
    """Return residency, what to review, what was refused, every request, and other events."""
    asked = requests(report)
    flagged = [(entry, record) for entry, record in asked if Flag.BREAK_GLASS in record.flags]
    refused = [(entry, record) for entry, record in asked if record.outcome is Outcome.REFUSED]
    every = "No record of a request lies in this period and passes these filters."
    return [
        _residency(report),
        request_table("break-glass", "Break-glass requests to review", flagged, ""),
        request_table("refused", "Refused requests", refused, ""),
        request_table("requests", "All requests", asked, every),
        events_table(report),
    ]


def events_table(report: Report) -> Table:
    """Return what is no request of its own: refusals at a full door, devices, jobs, ends of streams."""
    return Table(
        name="events",
        title="Full doors, devices, releases, federated jobs, policies, reports and ends of streams",
        columns=(
            Column("Record", 0),
            Column("Time (UTC)", 0),
            Column("Event"),
            Column("About", 1.8),
            Column("By", 0.9),
        ),
        rows=[
            [
                where(entry),
                clock(entry.record.time),
                describe(entry.record),
                about(entry.record),
                getattr(entry.record, "principal", None) or "",
            ]
            for entry in report.entries
            if not is_request(entry.record)
        ],
    )


def _residency(report: Report) -> Table:
    counts: Counter[tuple[str, str]] = Counter()
    devices: Counter[str] = Counter()
    places = {
        (record.jurisdiction or "none", record.placement or "")
        for _, record in requests(report)
        if ran(record)
    }
    for home, placement in places:
        devices[home] += placement.startswith(_DEVICE)
    for _, record in requests(report):
        if ran(record):
            home, placement = record.jurisdiction or "none", record.placement or ""
            # All devices are one: each holds its own data.
            counts[home, "" if placement.startswith(_DEVICE) else placement] += 1
    return Table(
        name="residency",
        title="Residency",
        intro="Where served requests ran, by the legal home of the data.",
        columns=(
            Column("Jurisdiction of the data"),
            Column("Ran on", 2),
            Column("Requests", 0, Style.NUMBER),
        ),
        rows=[
            [home, place or f"devices that hold the data ({devices[home]})", str(number)]
            for (home, place), number in sorted(counts.items())
        ],
    )


ACCESS: Final = Kind(
    name="access",
    title="Access report",
    subtitle="Who asked what about whom, where it ran, and under which policy",
    basis=("45 CFR 164.312(b)", "GDPR Art. 5(2)"),
    figures=figures,
    charts=charts,
    tables=tables,
    events=access_events,
)
