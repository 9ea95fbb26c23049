"""Verifies a report's zip file: that it is whole, and the one that the site's log says was made."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from audit.errors import VerificationError
from audit.note import NoteVerifier
from audit.records import ReportRecord, ReportStep
from audit.reports.package import (
    JSON,
    MANIFEST,
    MANIFEST_FORMAT,
    RECEIPT,
    RECEIPT_FORMAT,
    derived_files,
)
from audit.reports.proved import LogHead, ProvedEntry, verify_entry, verify_head, verify_json
from audit.reports.report import Report

# Far more than a report of a million records; a file that grows past it is an attack.
UNPACKED_MAX_BYTES: Final = 1 << 30
_MAGIC: Final = b"PK"


class _Manifest(Struct, forbid_unknown_fields=True):
    format: str
    kind: str
    site: str
    created: datetime
    files: dict[str, str]


class _Receipt(Struct, forbid_unknown_fields=True):
    format: str
    log: LogHead
    entry: ProvedEntry


def is_zip(data: bytes) -> bool:
    """Say whether `data` begins as a zip file does."""
    return data.startswith(_MAGIC)


def verify_zip(data: bytes, verifiers: Sequence[NoteVerifier]) -> tuple[Report, bool, str]:
    """Return the report in a zip file, all of it verified, and the record that says it was made.

    The second value says whether what it shows was made again from its records and found the same.

    Raises:
        VerificationError: naming the file, record or log that does not check.
    """
    files = _unpack(data)
    receipt = _verify_receipt(files, verifiers)
    manifest = _verify_manifest(files)
    report, repeated = verify_json(files[JSON], verifiers, JSON)
    stated = (manifest.kind, manifest.site, manifest.created, receipt.kind)
    if stated != (report.kind.name, report.site, report.created, report.kind.name):
        raise VerificationError(f"{MANIFEST} is of another report")
    for name, derived in derived_files(report).items() if repeated else ():
        if files.get(name) != derived:
            raise VerificationError(f"{name} is not what follows from the records")
    return report, repeated, receipt.where


class _Recorded(Struct):
    kind: str | None
    where: str


def _unpack(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > UNPACKED_MAX_BYTES:
                raise VerificationError("the zip file holds more than any report")
            files = {member.filename: archive.read(member) for member in members}
    except (
        zipfile.BadZipFile,
        # Of a compression or an encryption that zipfile does not know.
        NotImplementedError,
        RuntimeError,
        EOFError,
        ValueError,
        zlib.error,
    ) as error:
        raise VerificationError("the zip file is damaged") from error
    if len(files) != len(members):
        raise VerificationError("the zip file holds two files of one name")
    for name in (MANIFEST, RECEIPT, JSON):
        if name not in files:
            raise VerificationError(f"the zip file has no {name}")
    return files


def _verify_receipt(files: dict[str, bytes], verifiers: Sequence[NoteVerifier]) -> _Recorded:
    try:
        receipt = msgspec.json.decode(files[RECEIPT], type=_Receipt)
    except msgspec.MsgspecError as error:
        raise VerificationError(f"{RECEIPT} is malformed") from error
    if receipt.format != RECEIPT_FORMAT:
        raise VerificationError(f"{RECEIPT} has another format than {RECEIPT_FORMAT}")
    checkpoint = verify_head(receipt.log, verifiers)
    entry = verify_entry(receipt.entry, {checkpoint.origin: checkpoint})
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    record = entry.record
    if (
        not isinstance(record, ReportRecord)
        or record.step is not ReportStep.MADE
        or record.digest != digest
    ):
        raise VerificationError(f"{MANIFEST} is not the one that the site's log recorded")
    return _Recorded(kind=record.kind, where=f"{entry.origin}#{entry.index}")


def _verify_manifest(files: dict[str, bytes]) -> _Manifest:
    try:
        manifest = msgspec.json.decode(files[MANIFEST], type=_Manifest)
    except msgspec.MsgspecError as error:
        raise VerificationError(f"{MANIFEST} is malformed") from error
    if manifest.format != MANIFEST_FORMAT:
        raise VerificationError(f"{MANIFEST} has another format than {MANIFEST_FORMAT}")
    present = set(files) - {MANIFEST, RECEIPT}
    for name in sorted(present ^ set(manifest.files)):
        raise VerificationError(f"{name} is in only one of the zip file and its manifest")
    for name, digest in manifest.files.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise VerificationError(f"{name} was changed: it has another digest than the manifest says")
    return manifest
