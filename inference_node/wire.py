"""What all readers of the protocol's bytes share: malformed input, stated lengths, stated time."""

import math
from typing import Final

import msgspec

from inference_node.errors import InputInvalid

MALFORMED: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What msgspec raises for bytes that are not the JSON that is wanted.

Besides its own errors: RecursionError past about a thousand levels of nesting, UnicodeDecodeError for a
string that is not UTF-8.
"""

TIMEOUT: Final = "Bedside-Timeout"
"""The header by which a caller says how long it will wait, in whole milliseconds."""

DIGEST: Final = "Bedside-Model-Digest"
"""The header by which a gateway says which file it expects to run, as SHA-256 in hexadecimal.

A node that would run another one answers 503 and states that one's digest in the same header.
"""

TIMEOUT_MAX_MS: Final = 86_400_000

_LENGTH_DIGITS: Final = 15


def stated_length(value: bytes | None, name: str) -> int | None:
    """Return the length that a header states, or None where it was not sent.

    Raises:
        InputInvalid: if it is not a decimal number of at most 15 digits; `name` is the header's.
    """
    if value is None:
        return None
    # Python refuses, with an error, to convert more than 4,300 digits.
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        raise InputInvalid(f"{name} must be a number of at most {_LENGTH_DIGITS} digits")
    return int(value)


def timeout_header(timeout_s: float) -> str:
    """Return what `Bedside-Timeout` says of a time in seconds; never 0, which is no time."""
    return str(min(max(math.ceil(timeout_s * 1000), 1), TIMEOUT_MAX_MS))


def stated_timeout_s(value: bytes | None) -> float | None:
    """Return the seconds that `Bedside-Timeout` gives a request, or None where it was not sent.

    Raises:
        InputInvalid: if it is not a whole number of milliseconds, 1 to a day.
    """
    timeout_ms = stated_length(value, TIMEOUT)
    if timeout_ms is None:
        return None
    if not 0 < timeout_ms <= TIMEOUT_MAX_MS:
        raise InputInvalid(f"{TIMEOUT} must be a number of milliseconds, 1 to {TIMEOUT_MAX_MS}")
    return timeout_ms / 1000
