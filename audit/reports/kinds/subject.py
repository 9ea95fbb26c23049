"""The access report for one subject: who used this person's data, what for, and where it ran."""

from typing import Final

from audit.records import AnyRecord, RequestRecord
from audit.reports.fhir import access_events
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.sent import ran, went_to
from audit.reports.words import (
    UNKNOWN,
    clock,
    lines,
    most,
    over_time,
    place_name,
    request_table,
    requests,
)


def figures(report: Report) -> list[Figure]:
    """Return how often this person's data was asked for and used, by how many."""
    asked = requests(report)
    used = [record for _, record in asked if ran(record)]
    outside = sum(1 for _, record in asked if any(went_to(record)))
    return [
        Figure("requests", len(asked)),
        Figure("uses", len(used), Tone.CALM),
        Figure("left the site", outside, Tone.CAUTION),
        Figure("who asked", len({record.principal for _, record in asked} - {None})),
        Figure("models", len({record.model for record in used} - {None})),
        Figure("emergencies", sum(record.emergency for _, record in asked), Tone.ALERT),
    ]


def charts(report: Report) -> list[Chart]:
    """Return uses over time, by purpose and by place."""
    asked = requests(report)
    used = [record for _, record in asked if ran(record)]
    return [
        *over_time(report, asked),
        Bars(title="What for", rows=most(record.purpose or "none stated" for record in used)),
        Bars(title="Where it ran", rows=most(place_name(record.placement) for record in used)),
    ]


def tables(report: Report) -> list[Table]:
    """Return who asked, and every request."""
    asked = requests(report)
    by_whom: dict[str, list[RequestRecord]] = {}
    for _, record in asked:
        by_whom.setdefault(record.principal or UNKNOWN, []).append(record)
    return [
        Table(
            name="who",
            title="Who asked",
            columns=(
                Column("Who", 1.2),
                Column("Purposes"),
                Column("Models", 1.2),
                Column("First (UTC)", 0),
                Column("Last (UTC)", 0),
                Column("Uses", 0, Style.NUMBER),
                Column("Requests", 0, Style.NUMBER),
            ),
            rows=[
                [
                    lines(who, ", ".join(sorted({role for one in records for role in one.roles}))),
                    ", ".join(sorted({one.purpose for one in records if one.purpose})),
                    ", ".join(sorted({one.model for one in records if one.model})),
                    clock(records[0].time),
                    clock(records[-1].time),
                    str(sum(map(ran, records))),
                    str(len(records)),
                ]
                for who, records in sorted(by_whom.items())
            ],
        ),
        request_table("requests", "Every request", asked, "Nobody asked about this person."),
    ]


def _about_somebody(record: AnyRecord) -> bool:
    return isinstance(record, RequestRecord) and record.subject is not None


SUBJECT: Final = Kind(
    name="subject",
    title="Access to one person's data",
    subtitle="Who asked about this person, what for, and where it ran",
    basis=("GDPR Art. 15(1)", "45 CFR 164.524"),
    shows=_about_somebody,
    figures=figures,
    charts=charts,
    tables=tables,
    needs_subject=True,
    events=access_events,
    notes=(
        (
            "A use is a model run on the person's data, here or on the device that holds it. The "
            "person stands in the log as a keyed pseudonym; only the site can say whose it is."
        ),
    ),
)
