"""Verifies a report offline, against the public keys of the logs it draws on."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from audit.cosignature import Cosignature, WitnessKey, require_quorum
from audit.errors import VerificationError
from audit.note import NoteVerifier
from audit.reports.proved import verify_json
from audit.reports.unpack import is_zip, verify_zip


class ReportVerification(Struct, frozen=True, kw_only=True):
    """What was verified: `entries` records of the logs named.

    `repeated` says whether what the report shows was made again from its records and found the same;
    another version of Bedside cannot. `receipt` is the log's record that the report was made, of a zip.
    """

    kind: str
    entries: int
    origins: tuple[str, ...]
    repeated: bool
    receipt: str | None = None
    cosignatures: dict[str, tuple[Cosignature, ...]] = {}


def verify_report(
    path: Path,
    verifiers: Sequence[NoteVerifier],
    *,
    witnesses: Sequence[WitnessKey] = (),
    quorum: int = 0,
) -> ReportVerification:
    """Check a report, as a zip file or in JSON form.

    Raises:
        VerificationError: naming the file, record or log that does not check, or if fewer than `quorum`
            of the `witnesses` cosigned a checkpoint that the report draws on.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VerificationError(f"{path} cannot be read") from error
    receipt = None
    if is_zip(data):
        report, repeated, receipt = verify_zip(data, verifiers)
    else:
        report, repeated = verify_json(data, verifiers, str(path))
    return ReportVerification(
        kind=report.kind.name,
        entries=len(report.entries),
        origins=tuple(checkpoint.origin for checkpoint in report.checkpoints),
        repeated=repeated,
        receipt=receipt,
        cosignatures={
            checkpoint.origin: tuple(require_quorum(checkpoint.note, witnesses, quorum))
            for checkpoint in report.checkpoints
        },
    )
