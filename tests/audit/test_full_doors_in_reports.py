"""Requests refused at a full door share a record; reports count every one of them all the same."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.records import Action, Outcome, Problem, RefusalsRecord, encode
from audit.reports import KINDS, Filters, LogSource, build_report

KEY = Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier("clinic/gateway-1", KEY.public_key())
MONDAY = datetime(2026, 3, 2, 10, tzinfo=UTC)


def shared(count, principal="app.triage", time=MONDAY, model="risk"):
    return RefusalsRecord(
        time=time,
        until=time + timedelta(seconds=2),
        id=UUID(int=9),
        action=Action.INFER,
        outcome=Outcome.FAILED,
        status=503,
        problem=Problem.OVERLOADED,
        principal=principal,
        roles=("app",),
        model=model,
        count=count,
    )


@pytest.fixture
def report_of(tmp_path, request_record):
    def build(kind, *records, **filters):
        async def fill():
            async with asyncio.timeout(60):
                log = await Log.open(tmp_path / "log", origin=VERIFIER.name, key=KEY)
                for given in records:
                    record = given
                    if isinstance(given, dict):
                        record = msgspec.structs.replace(request_record, **{"time": MONDAY, **given})
                    await log.append(encode(record))
                await log.close()

        asyncio.run(fill())
        source = LogSource(folder=tmp_path / "log", verifier=VERIFIER)
        period = Filters(since=MONDAY, until=MONDAY + timedelta(days=9), **filters)
        return build_report(KINDS[kind], "clinic", [source], period)

    return build


POLICY = {"outcome": Outcome.REFUSED, "status": 403, "problem": Problem.POLICY_REFUSED}
QUEUE = {"outcome": Outcome.FAILED, "status": 503, "problem": Problem.OVERLOADED}
BROKEN = {"outcome": Outcome.FAILED, "status": 502, "problem": Problem.EXECUTION_FAILED}


def figures(report):
    return {figure.label: figure.value for figure in report.kind.figures(report)}


def table(report, name):
    return next(one for one in report.kind.tables(report) if one.name == name)


def bars(report, title):
    return dict(next(one.rows for one in report.kind.charts(report) if one.title == title))


def columns(report):
    chart = next(one for one in report.kind.charts(report) if one.title.startswith("Requests by"))
    return Counter({series.name: sum(series.values) for series in chart.series})


def test_refusals_counts_what_found_no_room_and_nothing_else_that_failed(report_of):
    report = report_of(
        "refusals",
        {},
        POLICY,
        QUEUE,
        BROKEN,
        shared(30),
        shared(2, "dr.brandt"),
        shared(10, time=MONDAY + timedelta(minutes=1)),
    )
    numbers = figures(report)
    assert (numbers["refused"], numbers["by policy"], numbers["no room"]) == (44, 1, 43)
    assert numbers["otherwise"] == 0
    assert bars(report, "Why") == {"overloaded": 43, "policy-refused": 1}
    assert bars(report, "Who was refused")["app.triage"] == 40
    assert columns(report) == {"refused": 1, "failed or left": 43}
    rows = table(report, "full-doors").rows
    assert [row[-2:] for row in rows] == [["2", "40"], ["1", "2"]]
    assert rows[0][:4] == [
        "2026-03-02 10:00:00",
        "2026-03-02 10:01:02",
        ["app.triage", "app"],
        "infer risk",
    ]
    assert len(table(report, "requests").rows) == 2


def test_refusals_of_one_principal_are_those_of_no_other(report_of):
    report = report_of("refusals", shared(40), shared(2, "dr.brandt"), principal="dr.brandt")
    assert figures(report)["refused"] == 2


def test_activity_counts_every_request_of_a_shared_record(report_of):
    report = report_of("activity", {}, POLICY, shared(40), shared(2, "dr.adams"))
    numbers = figures(report)
    assert (numbers["requests"], numbers["refused"], numbers["failed, left"]) == (44, 1, 42)
    assert numbers["principals"] == 2
    assert bars(report, "Who asked") == {"app.triage": 40, "dr.adams": 4}
    assert bars(report, "What for") == {"infer": 44}
    assert columns(report) == {"served": 1, "refused": 1, "failed or left": 42}
    table_of = table(report, "principals")
    titles = [column.title for column in table_of.columns]
    rows = [dict(zip(titles, row, strict=True)) for row in table_of.rows]
    assert [(row["Refused"], row["Door full"], row["Requests"]) for row in rows] == [
        ("0", "40", "40"),
        ("1", "2", "4"),
    ]
    assert rows[0]["Who"] == ["app.triage", "app"]


def test_a_day_of_full_doors_is_an_unusual_volume(report_of):
    days = [{"time": MONDAY + timedelta(days=day), "principal": "app.triage"} for day in range(5)]
    flood = shared(50, time=MONDAY + timedelta(days=7))
    report = report_of("activity", *days, flood)
    (finding,) = [row for row in table(report, "findings").rows if row[0] == "Unusual volume"]
    assert finding[1] == "app.triage"
    assert finding[3] == "50 requests; median of its 5 other days: 1"


def test_access_counts_them_in_its_totals(report_of):
    report = report_of("access", {}, shared(40))
    assert figures(report)["requests"] == 41
    assert figures(report)["failed, left"] == 40
    assert columns(report) == {"served": 1, "failed or left": 40}
