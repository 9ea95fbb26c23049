"""Puts a report in all its forms into one zip file, with a manifest that the site's own log records.

<kind>.zip
  report.pdf, report.json, records.csv, tables/<name>.csv
  audit-events.json   FHIR, where it fits
  manifest.json   the SHA-256 digest of each of these files
  receipt.json    the log's record of the manifest's digest, with its inclusion proof and checkpoint

The receipt makes the whole file one that the site said: it cannot be altered afterwards, not even by
leaving out a record and all that follows from it.
"""

import hashlib
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from audit.log import Log
from audit.merkle import inclusion_proof
from audit.published import FileNodes
from audit.records import ReportRecord, encode
from audit.reports.document import entry_fields, log_fields, show, to_json
from audit.reports.fhir import to_bundle
from audit.reports.pdf import render
from audit.reports.report import Entry, Report
from audit.reports.spreadsheet import records_csv, table_csv
from audit.source import LogSource
from audit.verify import read_checkpoint

MANIFEST_FORMAT: Final = "bedside-manifest/1"
RECEIPT_FORMAT: Final = "bedside-receipt/1"
MANIFEST: Final = "manifest.json"
RECEIPT: Final = "receipt.json"
JSON: Final = "report.json"
PDF: Final = "report.pdf"
RECORDS: Final = "records.csv"
EVENTS: Final = "audit-events.json"


class Package(Struct, frozen=True, kw_only=True):
    """A report in all its forms, and the manifest of their digests."""

    report: Report
    files: dict[str, bytes]
    manifest: bytes

    @property
    def digest(self) -> str:
        """The SHA-256 digest of the manifest, which the log records."""
        return hashlib.sha256(self.manifest).hexdigest()


class ReportFiles(Struct, frozen=True):
    """Where a report was written."""

    json: Path
    csv: Path
    pdf: Path
    zip: Path


def make_package(report: Report) -> Package:
    """Return the report in all its forms; the same report gives the same bytes."""
    files = derived_files(report)
    shown = show(report)
    files[PDF] = render(report, shown)
    files[JSON] = to_json(report, shown)
    manifest = {
        "format": MANIFEST_FORMAT,
        "kind": report.kind.name,
        "site": report.site,
        "created": report.created,
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    text = msgspec.json.format(msgspec.json.encode(manifest))
    return Package(report=report, files=files, manifest=text)


def derived_files(report: Report) -> dict[str, bytes]:
    """Return the forms that follow from the records byte for byte, on every machine."""
    files = {f"tables/{table.name}.csv": table_csv(table).encode() for table in show(report).tables}
    files[RECORDS] = records_csv(report).encode()
    if report.kind.events is not None:
        files[EVENTS] = to_bundle(report, report.kind.events(report))
    return files


async def record_package(
    package: Package,
    log: Log,
    source: LogSource,
    *,
    record_id: UUID,
    principal: str | None = None,
    time: datetime | None = None,
) -> bytes:
    """Record in `log` that the report was made, close it, and return the receipt.

    Raises:
        LogUnavailable: if the record cannot be made durable; the report must not be given out then.
    """
    record = ReportRecord(
        time=time or datetime.now(UTC),
        id=record_id,
        kind=package.report.kind.name,
        principal=principal,
        digest=package.digest,
    )
    leaf = encode(record)
    try:
        position = await log.append(leaf)
    finally:
        await log.close()
    checkpoint = read_checkpoint(source.folder, source.verifier)
    nodes = FileNodes(source.folder, checkpoint.size)
    proof = tuple(inclusion_proof(position, checkpoint.size, nodes.node))
    entry = Entry(origin=checkpoint.origin, index=position, leaf=leaf, proof=proof, record=record)
    fields = {
        "format": RECEIPT_FORMAT,
        "log": log_fields(checkpoint, str(source.verifier)),
        "entry": entry_fields(entry),
    }
    return msgspec.json.format(msgspec.json.encode(fields))


def to_zip(package: Package, receipt: bytes) -> bytes:
    """Return the zip file; its times are the report's own."""
    output = io.BytesIO()
    moment = package.report.created.astimezone(UTC).timetuple()[:6]
    contents = {MANIFEST: package.manifest, RECEIPT: receipt, **package.files}
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            member = zipfile.ZipInfo(name, moment)
            member.external_attr = 0o644 << 16
            archive.writestr(member, contents[name], zipfile.ZIP_DEFLATED)
    return output.getvalue()


def write_package(package: Package, receipt: bytes, folder: Path) -> ReportFiles:
    """Write `<kind>-report.zip`, and its JSON, CSV and PDF beside it, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{package.report.kind.name}-report"
    files = ReportFiles(*(folder / f"{name}.{suffix}" for suffix in ("json", "csv", "pdf", "zip")))
    files.json.write_bytes(package.files[JSON])
    files.csv.write_bytes(package.files[RECORDS])
    files.pdf.write_bytes(package.files[PDF])
    files.zip.write_bytes(to_zip(package, receipt))
    return files
