import asyncio
import csv
import io
import json

import msgspec
import pypdf
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier, VerificationError
from audit.records import Flag, Outcome, Problem, encode
from audit.reports import Filters, LogSource, build_access_report, verify_report, write_report

KEY = Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier("clinic/gateway-1", KEY.public_key())


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
        return build_access_report("clinic", [source], filters or Filters())

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
    assert verify_report(files.json, [VERIFIER]).entries == 40


def test_a_record_changed_in_the_report_is_named(report_of, tmp_path):
    files = write_report(report_of([{"rows": n} for n in range(5)]), tmp_path / "out")
    document = json.loads(files.json.read_text())
    document["entries"][3]["record"]["principal"] = "dr.nobody"
    files.json.write_text(json.dumps(document))
    with pytest.raises(VerificationError, match="record 3 was changed"):
        verify_report(files.json, [VERIFIER])


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
        build_access_report(
            "clinic", [LogSource(folder=tmp_path / "log", verifier=VERIFIER)], Filters()
        )


def test_no_cell_can_be_taken_for_a_formula(report_of, tmp_path):
    report = report_of([{}])
    entry = report.entries[0]
    record = msgspec.structs.replace(entry.record, principal="=cmd|'/c calc'!A0")
    report = msgspec.structs.replace(report, entries=(msgspec.structs.replace(entry, record=record),))
    files = write_report(report, tmp_path / "out")
    (row,) = csv.DictReader(io.StringIO(files.csv.read_text()))
    assert row["principal"].startswith("'=")
