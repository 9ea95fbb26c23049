"""The residency report: where data of each jurisdiction ran, and by which rule."""

from collections import Counter
from typing import Final

from audit.records import AGREEMENTS, AnyRecord, PlaceTrait, RequestRecord
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Style, Table, Tone
from audit.reports.report import Report
from audit.reports.sent import home_and_place, place_of, ran, stayed
from audit.reports.words import most, request_table, requests


def figures(report: Report) -> list[Figure]:
    """Return how much ran, at home and abroad."""
    records = [record for _, record in requests(report)]
    pairs = [home_and_place(record) for record in records]
    unknown = sum("?" in pair for pair in pairs)
    home = sum(stayed(*pair) for pair in pairs)
    return [
        Figure("requests served", len(records)),
        Figure("in own country", home, Tone.CALM),
        Figure("abroad", len(records) - home - unknown, Tone.ALERT),
        Figure("place unknown", unknown, Tone.CAUTION),
        Figure("on the device", sum(_device(record) for record in records)),
        Figure("jurisdictions", len({pair[0] for pair in pairs} - {"?"})),
    ]


def charts(report: Report) -> list[Chart]:
    """Return homes, places and rules."""
    records = [record for _, record in requests(report)]
    ways = (f"{home} data ran in {place}" for home, place in map(home_and_place, records))
    return [
        Bars(title="Home of the data, and where it ran", rows=most(ways)),
        Bars(
            title="Rules that permitted it",
            rows=most(policy for record in records for policy in record.policies),
        ),
    ]


def tables(report: Report) -> list[Table]:
    """Return where each jurisdiction's data ran by which rule, and what ran abroad."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    abroad = []
    for entry, record in requests(report):
        home, place = home_and_place(record)
        rules = ", ".join(record.policies) or "none"
        counts[home, place, _kind_of_place(record), rules] += 1
        if not stayed(home, place):
            abroad.append((entry, record))
    return [
        Table(
            name="where",
            title="Where data of each jurisdiction ran, and by which rule",
            columns=(
                Column("Data of", 0),
                Column("Ran in", 0),
                Column("On", 1.4),
                Column("By the rule", 1.8),
                Column("Requests", 0, Style.NUMBER),
            ),
            rows=[
                [home, place, kind, rules, str(number)]
                for (home, place, kind, rules), number in sorted(counts.items())
            ],
            empty="No model ran on anybody's data.",
        ),
        request_table(
            "abroad",
            "Requests that ran in another country, or where the record does not say",
            abroad,
            "None.",
        ),
    ]


def _device(record: RequestRecord) -> bool:
    return (record.placement or "").startswith("device:")


def _kind_of_place(record: RequestRecord) -> str:
    if _device(record):
        return "a device that holds the data"
    place = place_of(record, record.placement or "")
    if place is None:
        return f"{record.placement}"
    if PlaceTrait.ON_PREMISES in place.traits:
        return f"{place.placement}, on the premises"
    agreed = "under an agreement" if AGREEMENTS & set(place.traits) else "no agreement"
    return f"{place.placement}, elsewhere, {agreed}"


def _shows(record: AnyRecord) -> bool:
    return isinstance(record, RequestRecord) and ran(record)


RESIDENCY: Final = Kind(
    name="residency",
    title="Residency report",
    subtitle="Where data of each jurisdiction ran, and by which rule",
    basis=("GDPR Art. 44", "45 CFR 164.312(e)(1)"),
    shows=_shows,
    figures=figures,
    charts=charts,
    tables=tables,
    notes=(
        (
            "A place's jurisdiction is what policies saw when they decided; \u201c?\u201d means "
            "that the record does not hold it. A state counts as its country. Countries that "
            "share a law, such as those of the EEA, are counted apart: whether another country "
            "was allowed is what the rule says."
        ),
    ),
)
