"""The facts that a caller states, as headers: their names, and how they are read."""

from collections.abc import Iterable, Mapping
from typing import Final

from audit.records import Problem
from inference_node.wire import TIMEOUT_MAX_MS
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Claims

SUBJECT: Final = b"bedside-subject"
DATA_CLASS: Final = b"bedside-data-class"
JURISDICTION: Final = b"bedside-jurisdiction"
PURPOSE: Final = b"bedside-purpose"
CONSENT: Final = b"bedside-consent"
EMERGENCY: Final = b"bedside-emergency"

TIMEOUT: Final = b"bedside-timeout"

NAMES: Final = (SUBJECT, DATA_CLASS, JURISDICTION, PURPOSE, CONSENT, EMERGENCY)

NO_CLAIMS: Final = Claims()

_NAMED: Final = frozenset(NAMES)

_DIGITS: Final = len(str(TIMEOUT_MAX_MS))
_SINGLE: Final = frozenset(
    {
        *NAMES,
        TIMEOUT,
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"inference-header-content-length",
    }
)


def claims_of(headers: Mapping[bytes, bytes]) -> Claims:
    """Return the claims in `headers` (names in lower case), unchecked."""
    if _NAMED.isdisjoint(headers):
        return NO_CLAIMS
    return Claims(
        subject=text_of(headers.get(SUBJECT)),
        data_class=text_of(headers.get(DATA_CLASS)),
        jurisdiction=text_of(headers.get(JURISDICTION)),
        purpose=text_of(headers.get(PURPOSE)),
        consent=text_of(headers.get(CONSENT)),
        emergency=text_of(headers.get(EMERGENCY)),
    )


def deadline_of(timeout: bytes, now: float) -> float:
    """Return when a caller gives up, as `now` is given: `timeout` is the header, in milliseconds.

    Raises:
        Refusal: facts-invalid.
    """
    if not (timeout.isdigit() and len(timeout) <= _DIGITS and 0 < int(timeout) <= TIMEOUT_MAX_MS):
        raise Refusal(
            Problem.FACTS_INVALID,
            f"Bedside-Timeout must be a number of milliseconds, 1 to {TIMEOUT_MAX_MS}.",
        )
    return now + int(timeout) / 1000


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


def text_of(value: bytes | None) -> str | None:
    """Return the text of a header's value, None if it was not sent."""
    # Header values are ISO-8859-1 on the wire (RFC 9110 section 5.5); every byte decodes.
    return None if value is None else value.decode("latin-1")
