"""What both forms of export say of a record: how grave it is, what it is called, and its fields."""

import logging
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, get_args

import msgspec

from audit.records import AnyRecord, Flag, Outcome, PolicyOutcome

logger = logging.getLogger(__name__)


class Severity(IntEnum):
    """How grave a record is, in syslog's numbers (RFC 5424 section 6.2.1)."""

    WARNING = 4
    NOTICE = 5
    INFORMATIONAL = 6


def severity_of(record: AnyRecord) -> Severity:
    """Return how grave `record` is: an emergency or a failure is a warning, a refusal a notice."""
    outcome = getattr(record, "outcome", None)
    if Flag.BREAK_GLASS in getattr(record, "flags", ()):
        return Severity.WARNING
    if outcome in (Outcome.FAILED, Outcome.ABANDONED):
        return Severity.WARNING
    if outcome in (Outcome.REFUSED, PolicyOutcome.REFUSED):
        return Severity.NOTICE
    return Severity.INFORMATIONAL


def kind_of(record: AnyRecord) -> str:
    """Return the type of `record` as its canonical form names it, such as `request`."""
    return str(type(record).__struct_config__.tag)


def fields_of(leaf: bytes) -> Iterator[tuple[str, str | int | bool | list[str]]]:
    """Yield the fields of a record's canonical form; those of an inner object are named `outer.inner`.

    Places, which are arrays in that form, become text such as `node:us-1 US-CA on-premises`. A field
    that no type of record has is not exported.
    """
    unlisted = 0
    for name, value in _flat(msgspec.json.decode(leaf), ""):
        if name in ATTRIBUTES:
            yield name, value
        else:
            unlisted += 1
    if unlisted:
        logger.error("%d fields of a record are on no list and were not exported", unlisted)


def _names(record: type, prefix: str) -> Iterator[str]:
    for field in msgspec.structs.fields(record):
        inner = [one for one in get_args(field.type) or (field.type,) if _is_object(one)]
        if inner:
            for one in inner:
                yield from _names(one, f"{prefix}{field.encode_name}.")
        else:
            yield f"{prefix}{field.encode_name}"


def _is_object(kind: Any) -> bool:  # noqa: ANN401 an annotation
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return False
    return not kind.__struct_config__.array_like


ATTRIBUTES: Final = frozenset({"type"}.union(*(_names(record, "") for record in get_args(AnyRecord))))
"""The fields that any type of record has; docs/reference/telemetry.md lists them."""


def _flat(fields: dict[str, Any], prefix: str) -> Iterator[tuple[str, str | int | bool | list[str]]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", [_text(one) for one in value]
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:  # noqa: ANN401 JSON
    if isinstance(value, list):
        return " ".join(filter(None, (_text(one) for one in value)))
    return str(value)
