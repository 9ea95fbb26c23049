"""The caller's token and facts from a call's metadata, under the names of the REST headers.

gRPC writes metadata in lower case, so `Bedside-Subject` is `bedside-subject` here.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from secure_gateway.claims import NAMES, NO_CLAIMS
from secure_gateway.exchange import Claims

_AUTHORIZATION: Final = "authorization"
_FIELDS: Final[Mapping[str, str]] = {
    name.decode(): name.decode().removeprefix("bedside-").replace("-", "_") for name in NAMES
}


class Sent(Struct, frozen=True):
    """What the metadata says; `fault` says what is wrong with it."""

    authorization: bytes | None = None
    claims: Claims = NO_CLAIMS
    fault: str | None = None


def read_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Sent:
    """Return what `metadata` says, unchecked but for what is sent twice: it has no one meaning."""
    authorization: bytes | None = None
    fields: dict[str, str] = {}
    fault: str | None = None
    for name, value in metadata:
        if name == _AUTHORIZATION:
            if authorization is not None:
                fault = f"The metadata {_AUTHORIZATION} was sent twice."
            authorization = value.encode() if isinstance(value, str) else value
        elif name in _FIELDS:
            field = _FIELDS[name]
            if field in fields:
                fault = f"The metadata {name} was sent twice."
            elif not isinstance(value, str) or not value.isascii():
                fault = f"The metadata {name} must be ASCII text."
            else:
                fields[field] = value
    return Sent(authorization, Claims(**fields) if fields else NO_CLAIMS, fault)
