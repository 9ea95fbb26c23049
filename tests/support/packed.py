"""Reports of the hospital, packed as the command line packs them."""

import asyncio
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.reports import (
    KINDS,
    Filters,
    LogSource,
    Report,
    build_report,
    make_package,
    record_package,
)
from audit.reports.package import to_zip
from support.hospital import SITE, write_hospital

CREATED = datetime(2026, 11, 24, 9, tzinfo=UTC)


class Made:
    """The hospital's logs, and the log that records its reports."""

    def __init__(self, folder: Path, sources: list[LogSource]) -> None:
        self.folder = folder
        self.sources = sources
        self.key = Ed25519PrivateKey.generate()
        self.log = LogSource(
            folder=folder / "reports",
            verifier=NoteVerifier(f"{SITE}/reports", self.key.public_key()),
        )

    @property
    def verifiers(self) -> list[NoteVerifier]:
        return [source.verifier for source in (*self.sources, self.log)]

    def report(self, kind: str, filters: Filters | None = None) -> Report:
        return build_report(KINDS[kind], SITE, self.sources, filters or Filters(), created=CREATED)


def made(folder: Path) -> Made:
    return Made(folder, asyncio.run(write_hospital(folder)))


def packed(site: Made, report: Report) -> bytes:
    """Return the report's zip file, recorded in the hospital's log of reports."""
    package = make_package(report)

    async def record() -> bytes:
        log = await Log.open(site.log.folder, origin=site.log.verifier.name, key=site.key)
        return await record_package(package, log, site.log, record_id=UUID(int=1))

    return to_zip(package, asyncio.run(record()))


def unpack(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return output.getvalue()
