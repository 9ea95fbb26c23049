import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pypdf
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier, VerificationError
from audit.records import Flag, Outcome, PolicyStep, Problem, encode
from audit.reports import (
    KINDS,
    Filters,
    LogSource,
    build_report,
    make_package,
    record_package,
    verify_report,
    write_package,
)
from audit.steps import step_record

KEY = Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier("clinic/gateway-1", KEY.public_key())
REPORTS_KEY = Ed25519PrivateKey.generate()
REPORTS = NoteVerifier("clinic/reports", REPORTS_KEY.public_key())
KEYS = [VERIFIER, REPORTS]


def write_report(report, folder):
    """Write the report as the command line does: recorded first, in a log of its own."""

    async def record():
        log = await Log.open(folder / "log", origin=REPORTS.name, key=REPORTS_KEY)
        source = LogSource(folder=folder / "log", verifier=REPORTS)
        return await record_package(package, log, source, record_id=UUID(int=3))

    package = make_package(report)
    return write_package(package, asyncio.run(record()), folder)


@pytest.fixture
def report_of(tmp_path, request_record):
    def build(changes, filters=None):
        async def fill():
            log = await Log.open(tmp_path / "log", origin=VERIFIER.name, key=KEY)
            for change in changes:
                await log.append(encode(msgspec.structs.replace(request_record, **change)))
            await log.close()

        asyncio.run(fill())
        source = LogSource(folder=tmp_path / "log", verifier=VERIFIER)
        return build_report(KINDS["access"], "clinic", [source], filters or Filters())

    return build


REFUSED = {
    "outcome": Outcome.REFUSED,
    "status": 403,
    "problem": Problem.POLICY_REFUSED,
    "placement": None,
    "policies": ("gdpr-transfer",),
}


def test_it_says_who_asked_what_about_whom_and_why(report_of, tmp_path):
    report = report_of([{}, REFUSED, {"flags": (Flag.BREAK_GLASS,), "purpose": "ETREAT"}])
    files = write_report(report, tmp_path / "out")
    text = "".join(page.extract_text() for page in pypdf.PdfReader(files.pdf).pages)
    for word in ("dr.adams", "abababababab", "node:", "gdpr-transfer", "break-glass", "Page 1 of"):
        assert word in text
    rows = list(csv.DictReader(io.StringIO(files.csv.read_text())))
    assert [row["outcome"] for row in rows] == ["served", "refused", "served"]
    assert rows[1]["problem"] == "policy-refused"
    assert rows[0]["subject"] == "ab" * 32


def test_filters_leave_out_what_was_not_asked_for(report_of):
    other = {"subject": "ef" * 32, "principal": "dr.brandt"}
    report = report_of([{}, other, other], Filters(subject="ef" * 32))
    assert [entry.index for entry in report.entries] == [1, 2]
    assert len(report_of([], Filters(principal="dr.adams")).entries) == 1


def test_its_json_verifies_offline(report_of, tmp_path):
    files = write_report(report_of([{"rows": n} for n in range(40)]), tmp_path / "out")
    assert verify_report(files.json, KEYS).entries == 40


def test_a_record_changed_in_the_report_is_named(report_of, tmp_path):
    files = write_report(report_of([{"rows": n} for n in range(5)]), tmp_path / "out")
    document = json.loads(files.json.read_text())
    document["entries"][3]["record"]["principal"] = "dr.nobody"
    files.json.write_text(json.dumps(document))
    with pytest.raises(VerificationError, match="record 3 was changed"):
        verify_report(files.json, KEYS)


def edited(files, edit):
    document = json.loads(files.json.read_text())
    edit(document)
    files.json.write_text(json.dumps(document))
    return files.json


def drop(document):
    del document["entries"][2]


def repeat(document):
    document["entries"].append(document["entries"][2])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop, "record 2 of clinic/gateway-1 is missing"),
        (repeat, "record 2 of clinic/gateway-1 is there twice"),
        (lambda d: d["entries"][1].update(index=3), "record 3 is not what"),
        (lambda d: d["entries"][1].update(index=9), "record 9 lies outside"),
        (lambda d: d["entries"][1].update(proof=[]), "record 1 is not what"),
        (lambda d: d["entries"][1].update(leaf="?"), "record 1: its proof is not base64"),
        (lambda d: d["entries"][1].update(origin="x/y"), "does not name"),
        (lambda d: d["filters"].update(outcome="refused"), "record 0 lies outside .* filters"),
        (lambda d: d["logs"][0].update(size=6), "is not what was signed"),
        (lambda d: d["logs"][0].update(root="00" * 32), "is not what was signed"),
        (lambda d: d["logs"][0].update(verifier="x+00000000+AA=="), "is not what was signed"),
        (lambda d: d["logs"].clear(), "does not name"),
        (lambda d: d.update(format="other"), "another format"),
        (lambda d: d.update(kind="other"), "does not know"),
        (lambda d: d["entries"].reverse(), "not in order"),
        (lambda d: d["shown"]["figures"][0].__setitem__(1, 4), "not what follows"),
        (lambda d: d["shown"]["tables"][0]["rows"].pop(), "not what follows"),
        (lambda d: d.pop("entries"), "not a report"),
    ],
)
def test_no_other_change_goes_unnoticed(report_of, tmp_path, edit, message):
    files = write_report(report_of([{"rows": n} for n in range(5)]), tmp_path / "out")
    with pytest.raises(VerificationError, match=message):
        verify_report(edited(files, edit), KEYS)


def test_several_logs_are_merged_in_order_of_time_and_each_is_proved(tmp_path, request_record):
    names = ("clinic/gateway-1", "clinic/coordinator")
    keys = {name: Ed25519PrivateKey.generate() for name in names}
    start = datetime(2026, 11, 23, tzinfo=UTC)

    async def fill(name):
        log = await Log.open(tmp_path / name, origin=name, key=keys[name])
        for n in range(3):
            time = start + timedelta(minutes=2 * n + names.index(name))
            await log.append(encode(msgspec.structs.replace(request_record, time=time)))
        await log.close()

    for name in names:
        asyncio.run(fill(name))
    verifiers = [NoteVerifier(name, keys[name].public_key()) for name in names]
    sources = [LogSource(folder=tmp_path / v.name, verifier=v) for v in verifiers]
    report = build_report(KINDS["access"], "clinic", sources, Filters())
    assert [entry.origin for entry in report.entries] == list(names) * 3
    files = write_report(report, tmp_path / "out")
    assert verify_report(files.json, verifiers).origins == names
    with pytest.raises(VerificationError, match="key was not given"):
        verify_report(files.json, verifiers[:1])


def test_a_report_of_a_period_and_an_outcome_shows_nothing_else(report_of, tmp_path):
    changes = [
        {"time": datetime(2026, 11, day, tzinfo=UTC), **(REFUSED if day % 2 else {})}
        for day in range(1, 9)
    ]
    filters = Filters(
        since=datetime(2026, 11, 2, tzinfo=UTC),
        until=datetime(2026, 11, 7, tzinfo=UTC),
        outcome=Outcome.REFUSED,
    )
    report = report_of(changes, filters)
    assert [entry.index for entry in report.entries] == [2, 4]
    files = write_report(report, tmp_path / "out")
    assert verify_report(files.json, KEYS).entries == 2


def test_the_same_report_is_the_same_bytes(report_of, tmp_path):
    report = report_of([{"rows": n} for n in range(30)])
    one, other = (write_report(report, tmp_path / name) for name in ("one", "other"))
    # The zip also holds when it was recorded.
    for form in ("json", "csv", "pdf"):
        assert getattr(one, form).read_bytes() == getattr(other, form).read_bytes()


def test_an_empty_period_makes_a_report_too(report_of, tmp_path):
    files = write_report(report_of([{}], Filters(principal="dr.nobody")), tmp_path / "out")
    text = "".join(page.extract_text() for page in pypdf.PdfReader(files.pdf).pages)
    assert "No record" in text
    assert verify_report(files.json, KEYS).entries == 0


def test_identifiers_are_shown_as_text_never_as_markup(report_of, tmp_path):
    """Characters that identifiers may have and Typst gives a meaning to."""
    files = write_report(
        report_of([{"principal": "a@b.example", "model": "x_y_z", "placement": "node:a//b"}]),
        tmp_path / "out",
    )
    text = "".join(page.extract_text() for page in pypdf.PdfReader(files.pdf).pages)
    text = text.replace("\u200b", "").replace("\n", "")
    for shown in ("a@b.example", "x_y_z", "node:a//b"):
        assert shown in text


def test_a_report_of_another_log_does_not_verify(report_of, tmp_path):
    files = write_report(report_of([{}]), tmp_path / "out")
    stranger = NoteVerifier(VERIFIER.name, Ed25519PrivateKey.generate().public_key())
    with pytest.raises(VerificationError):
        verify_report(files.json, [stranger])
    with pytest.raises(VerificationError, match="key was not given"):
        verify_report(files.json, [])


def test_no_report_is_made_from_a_log_that_does_not_verify(report_of, tmp_path):
    report_of([{}])
    bundle = tmp_path / "log/tile/entries/000.p/1"
    bundle.write_bytes(bundle.read_bytes().replace(b"dr.adams", b"dr.edams"))
    with pytest.raises(VerificationError, match="record 0"):
        build_report(
            KINDS["access"],
            "clinic",
            [LogSource(folder=tmp_path / "log", verifier=VERIFIER)],
            Filters(),
        )


def test_no_cell_can_be_taken_for_a_formula(report_of, tmp_path):
    report = report_of([{}])
    entry = report.entries[0]
    record = msgspec.structs.replace(entry.record, principal="=cmd|'/c calc'!A0")
    report = msgspec.structs.replace(report, entries=(msgspec.structs.replace(entry, record=record),))
    files = write_report(report, tmp_path / "out")
    (row,) = csv.DictReader(io.StringIO(files.csv.read_text()))
    assert row["principal"].startswith("'=")


def test_it_shows_the_steps_of_policies(tmp_path):
    step = step_record(
        PolicyStep.ROLLBACK,
        bundle="ab" * 32,
        version=4,
        approvers=("alice", "bob"),
        restores=2,
        reason="wrong-refusals",
    )
    refused = step_record(PolicyStep.PUBLISH, problem="under-signed", version=5)

    async def fill():
        log = await Log.open(tmp_path / "log", origin=VERIFIER.name, key=KEY)
        for record in (step, refused):
            await log.append(encode(record))
        await log.close()

    asyncio.run(fill())
    source = LogSource(folder=tmp_path / "log", verifier=VERIFIER)
    files = write_report(build_report(KINDS["access"], "clinic", [source], Filters()), tmp_path / "out")
    text = "".join(page.extract_text() for page in pypdf.PdfReader(files.pdf).pages)
    for word in ("policy rollback", "alice, bob", "back to v2: wrong-refusals", "under-signed"):
        assert word in " ".join(text.split())
    rows = list(csv.DictReader(io.StringIO(files.csv.read_text())))
    assert [row["event"] for row in rows] == ["policy rollback", "policy publish refused"]
    assert (rows[0]["version"], rows[0]["approvers"], rows[0]["restores"]) == ("4", "alice bob", "2")
    assert verify_report(files.json, [VERIFIER]).entries == 2
