"""The accounting of disclosures: what left the site, to whom, when and what for (45 CFR 164.528)."""

from collections.abc import Iterator
from typing import Final

from audit.records import AGREEMENTS, AnyRecord, RequestRecord
from audit.reports.fhir import disclosure_events
from audit.reports.kind import Bars, Chart, Column, Figure, Kind, Table, Tone
from audit.reports.report import Entry, Report
from audit.reports.sent import place_of, went_to
from audit.reports.words import UNKNOWN, clock, lines, model, most, plural, requests, shortest, where

# 45 CFR 164.528(a)(1)(i): treatment, payment and operations need no accounting; (iv): nor what the
# person authorized; (viii): nor a limited data set.
_OWN_USES: Final = {
    "TREAT": "treatment",
    "ETREAT": "treatment",
    "HPAYMT": "payment",
    "HOPERAT": "operations",
}


def exemption(record: RequestRecord) -> str:
    """Return why a disclosure need not be accounted for; nothing where it must be."""
    if record.data_class == "limited":
        return "limited data set, (a)(1)(viii)"
    if record.purpose in _OWN_USES:
        return f"{_OWN_USES[record.purpose]}, (a)(1)(i)"
    return "authorized, (a)(1)(iv)" if record.consent else ""


def _sent(report: Report) -> Iterator[tuple[Entry, RequestRecord, str, bool]]:
    for entry, record in requests(report):
        for placement, answered in went_to(record):
            yield entry, record, placement, answered


def figures(report: Report) -> list[Figure]:
    """Return how much left the site, and how much of it is to be accounted for."""
    sent = list(_sent(report))
    owed = [record for _, record, _, _ in sent if not exemption(record)]
    return [
        Figure("disclosures", len(sent)),
        Figure("accountable", len(owed), Tone.CAUTION),
        Figure("exempt", len(sent) - len(owed), Tone.CALM),
        Figure("recipients", len({placement for _, _, placement, _ in sent})),
        Figure("subjects", len({record.subject for _, record, _, _ in sent} - {None})),
        Figure("sent, no answer", sum(not answered for *_, answered in sent), Tone.ALERT),
    ]


def charts(report: Report) -> list[Chart]:
    """Return disclosures by recipient and by purpose."""
    sent = list(_sent(report))
    return [
        Bars(title="To whom", rows=most(placement for _, _, placement, _ in sent)),
        Bars(title="What for", rows=most(record.purpose or "none" for _, record, _, _ in sent)),
    ]


def tables(report: Report) -> list[Table]:
    """Return what must be accounted for, and what is exempt."""
    owed = [one for one in _sent(report) if not exemption(one[1])]
    exempt = [one for one in _sent(report) if exemption(one[1])]
    none = "No disclosure in this period must be accounted for."
    return [
        _table("accounting", "Disclosures to be accounted for", owed, none),
        _table("exempt", "Disclosures that 45 CFR 164.528(a)(1) exempts", exempt, "None."),
    ]


def _table(
    name: str, title: str, sent: list[tuple[Entry, RequestRecord, str, bool]], empty: str
) -> Table:
    return Table(
        name=name,
        title=title,
        columns=(
            Column("Record", 0),
            Column("Date (UTC)", 0),
            Column("Subject", 0.9),
            Column("To whom", 1.1),
            Column("What", 1.3),
            Column("What for, by whom", 1.2),
            Column("Accounting", 1.1),
        ),
        rows=[
            [
                where(entry),
                clock(record.time),
                shortest(record.subject) or "none named",
                lines(placement, _recipient(record, placement), "" if answered else "no answer"),
                lines(f"input of {model(record)}", _extent(record)),
                lines(record.purpose or "none stated", record.principal or UNKNOWN),
                exemption(record) or "to be accounted for",
            ]
            for entry, record, placement, answered in sent
        ],
        empty=empty,
    )


def _recipient(record: RequestRecord, placement: str) -> str:
    place = place_of(record, placement)
    if place is None:
        return "place not in the record"
    agreement = "agreement" if AGREEMENTS & set(place.traits) else "no agreement"
    return ", ".join(filter(None, (place.jurisdiction, agreement)))


def _extent(record: RequestRecord) -> str:
    rows = "" if record.rows is None else plural(record.rows, "row")
    return ", ".join(filter(None, (record.data_class, record.jurisdiction, rows)))


def _left(record: AnyRecord) -> bool:
    return isinstance(record, RequestRecord) and any(went_to(record))


DISCLOSURES: Final = Kind(
    name="disclosures",
    title="Accounting of disclosures",
    subtitle="What left the site, to whom, when and what for",
    basis=("45 CFR 164.528",),
    shows=_left,
    figures=figures,
    charts=charts,
    tables=tables,
    events=disclosure_events,
    notes=(
        (
            "A disclosure is an input that was sent to a node outside the site's premises. A "
            "place that the record does not call on the premises counts as outside, and a node "
            "that was sent the input and did not answer counts too. Sent again to another node, a "
            "request is two disclosures."
        ),
        (
            "Not disclosures: what ran on the person's own device, answers to the site's own "
            "callers, de-identified and synthetic data (45 CFR 164.514), and federated sums. "
            "Whether an exemption applies is judged here by the purpose, the consent and the data "
            "class that the record states; 45 CFR 164.528 leaves the last word to the covered "
            "entity."
        ),
    ),
)
