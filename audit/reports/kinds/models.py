"""The model inventory: which models and versions were used, released, loaded and unloaded."""

from collections import defaultdict
from typing import Final

from audit.records import Action, AnyRecord, Flag, Outcome, ReleaseRecord, RequestRecord
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Entry, Report
from audit.reports.words import (
    UNKNOWN,
    clock,
    lines,
    model,
    most,
    place_name,
    requests,
    short,
    shortest,
    where,
)

_USES: Final = frozenset({Action.INFER, Action.STREAM, Action.RECEIPT})
_CHANGES: Final = frozenset({Action.LOAD, Action.UNLOAD})

Key = tuple[str, str, str]


def _uses(report: Report) -> dict[Key, list[RequestRecord]]:
    found: dict[Key, list[RequestRecord]] = defaultdict(list)
    for _, record in requests(report):
        if record.action in _USES and record.model:
            found[record.model, record.model_version or "?", record.model_digest or ""].append(record)
    return found


def _releases(report: Report) -> dict[Key, tuple[Entry, ReleaseRecord]]:
    return {
        (record.model, record.model_version, record.model_digest): (entry, record)
        for entry, record in report.of(ReleaseRecord)
    }


def figures(report: Report) -> list[Figure]:
    """Return how many models were used, and how many changed."""
    uses, releases = _uses(report), _releases(report)
    changes = [record for _, record in requests(report) if record.action in _CHANGES]
    other = sum(Flag.OTHER_MODEL in record.flags for records in uses.values() for record in records)
    return [
        Figure("models used", len({name for name, _, _ in uses})),
        Figure("versions used", len(uses)),
        Figure("releases", len(releases), Tone.CALM),
        Figure("loads, unloads", len(changes)),
        Figure("no release here", len(uses.keys() - releases.keys()), Tone.CAUTION),
        Figure("other model run", other, Tone.ALERT),
    ]


def charts(report: Report) -> list[Chart]:
    """Return uses by model and by place."""
    used = [record for records in _uses(report).values() for record in records]
    return [
        Bars(title="Uses by model", rows=most(map(model, used))),
        Bars(title="Where models ran", rows=most(place_name(record.placement) for record in used)),
    ]


def tables(report: Report) -> list[Table]:
    """Return the inventory and the changes."""
    uses, releases = _uses(report), _releases(report)
    return [
        Table(
            name="inventory",
            title="Inventory: every version that was used or released",
            columns=(
                Column("Model", 1.1),
                Column("SHA-256 of the package", 1.1, Style.CODE),
                Column("Released", 1.2),
                Column("First use (UTC)", 0),
                Column("Last use (UTC)", 0),
                Column("Uses", 0, Style.NUMBER),
            ),
            rows=[
                [
                    f"{key[0]} v{key[1]}",
                    shortest(key[2]) or "not recorded",
                    _released(releases.get(key)),
                    clock(uses[key][0].time) if key in uses else "",
                    clock(uses[key][-1].time) if key in uses else "",
                    str(len(uses.get(key, ()))),
                ]
                for key in sorted(uses.keys() | releases.keys())
            ],
            empty="No model was used or released.",
        ),
        _changes(report),
    ]


def _released(release: tuple[Entry, ReleaseRecord] | None) -> str | list[str]:
    if release is None:
        return "not in this report"
    entry, record = release
    return lines(clock(record.time), f"{record.principal or UNKNOWN}, {where(entry)}")


def _changes(report: Report) -> Table:
    rows: list[tuple[Entry, list[str | list[str]]]] = []
    for entry, release in report.of(ReleaseRecord):
        package = f"SHA-256 {short(release.model_digest)}"
        name = f"{release.model} v{release.model_version}"
        rows.append((entry, ["released", name, release.principal or UNKNOWN, package]))
    for entry, asked in requests(report):
        if asked.action in _CHANGES:
            done = asked.outcome is Outcome.SERVED
            result = ", ".join(asked.changed) if done else lines(asked.outcome, asked.problem or "")
            who = asked.principal or UNKNOWN
            rows.append((entry, [asked.action.value, asked.model or "", who, result]))
    rows.sort(key=lambda row: (row[0].record.time, row[0].origin, row[0].index))
    return Table(
        name="changes",
        title="Changes: releases, loads and unloads",
        columns=(
            Column("Record", 0),
            Column("Time (UTC)", 0),
            Column("Change", 0.7),
            Column("Model"),
            Column("By"),
            Column("On, or with what", 1.4),
        ),
        rows=[[where(entry), clock(entry.record.time), *cells] for entry, cells in rows],
        empty="No model was released, loaded or unloaded.",
    )


def _shows(record: AnyRecord) -> bool:
    if isinstance(record, RequestRecord):
        used = record.action in _USES and record.outcome is Outcome.SERVED
        return used or record.action in _CHANGES
    return isinstance(record, ReleaseRecord)


MODELS: Final = Kind(
    name="models",
    title="Model inventory and changes",
    subtitle="Which models ran, from which releases, and what was loaded and unloaded",
    basis=("45 CFR 164.310(d)(2)(iii)", "Regulation (EU) 2024/1689 Art. 12"),
    shows=_shows,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        "No release here: it was released before the period, elsewhere, or without a signature.",
        "Other model run: a device reports another model than it was told to run.",
    ),
)
