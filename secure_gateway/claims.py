"""The facts that a caller states, as headers: their names, and how they are read."""

from collections.abc import Iterable, Mapping
from typing import Final

from audit.records import Problem
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Claims

SUBJECT: Final = b"bedside-subject"
DATA_CLASS: Final = b"bedside-data-class"
JURISDICTION: Final = b"bedside-jurisdiction"
PURPOSE: Final = b"bedside-purpose"
CONSENT: Final = b"bedside-consent"
EMERGENCY: Final = b"bedside-emergency"

NAMES: Final = (SUBJECT, DATA_CLASS, JURISDICTION, PURPOSE, CONSENT, EMERGENCY)

NO_CLAIMS: Final = Claims()

_SINGLE: Final = frozenset(
    {*NAMES, b"authorization", b"content-length", b"inference-header-content-length"}
)


def claims_of(headers: Mapping[bytes, bytes]) -> Claims:
    """Return the claims in `headers` (names in lower case), unchecked."""
    if not any(name in headers for name in NAMES):
        return NO_CLAIMS
    return Claims(
        subject=_text(headers.get(SUBJECT)),
        data_class=_text(headers.get(DATA_CLASS)),
        jurisdiction=_text(headers.get(JURISDICTION)),
        purpose=_text(headers.get(PURPOSE)),
        consent=_text(headers.get(CONSENT)),
        emergency=_text(headers.get(EMERGENCY)),
    )


def refuse_repeated(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request that sends one of our headers twice: it has no one meaning.

    Raises:
        Refusal: facts-invalid.
    """
    seen = set()
    for name, _ in headers:
        if name in _SINGLE and name in seen:
            raise Refusal(Problem.FACTS_INVALID, f"The header {name.decode()} was sent twice.")
        seen.add(name)


def _text(value: bytes | None) -> str | None:
    # Header values are ISO-8859-1 on the wire (RFC 9110 section 5.5); every byte decodes.
    return None if value is None else value.decode("latin-1")
