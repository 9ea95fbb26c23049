"""Decides what of a log message is written. Pure: it takes a record and returns a line, or none."""

import logging
import re
import sys
from collections.abc import Container, Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from types import CodeType
from typing import Final

from bedside.telemetry.catalogue import Kind
from bedside.telemetry.describe import describe
from bedside.telemetry.dropped import Dropped, What

WITHHELD: Final = "(withheld)"
REPEAT_S: Final = 60.0

_PART: Final = re.compile(r"%(?:\.\d)?[sdf]")
_NUMBER_MAX: Final = 10**18


class Screen:
    """Makes lines of the messages that `messages` lists, of parts that are of their kinds.

    Of others nothing is kept but, for a warning or worse, which library wrote it and where in its code:
    that tells an operator that something is wrong, and cannot hold what was sent.
    """

    def __init__(
        self,
        messages: Mapping[str, Mapping[str, tuple[Kind, ...]]],
        names: Container[str],
        dropped: Dropped,
    ) -> None:
        self._messages = messages
        self._names = names
        self._dropped = dropped
        self._told: dict[tuple[str, int], float] = {}

    def line(self, record: logging.LogRecord) -> str | None:
        """Return the line of `record`, without a line's end; None if nothing of it may be written."""
        kinds = self._messages.get(record.name, {}).get(record.msg if type(record.msg) is str else "")
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        if kinds is not None and len(kinds) == len(arguments if record.args else ()):
            parts = iter([self._part(*pair) for pair in zip(kinds, arguments, strict=False)])
            return _line(record, record.name, _PART.sub(lambda found: _put(found, parts), record.msg))
        self._dropped.add(What.MESSAGE)
        return self._whence(record) if record.levelno >= logging.WARNING else None

    def _whence(self, record: logging.LogRecord) -> str | None:
        """Return where a message that is not on the list was written; once a minute for each place."""
        library = record.name.partition(".")[0]
        # A logger can have any name; a module that was imported is named by the code.
        if library not in sys.modules:
            library = "a library"
        place = PurePath(record.pathname).stem, record.lineno
        if record.created - self._told.get(place, -REPEAT_S) < REPEAT_S:
            return None
        self._told[place] = record.created
        error = record.exc_info[1] if record.exc_info else None
        about = "" if error is None else f" about {describe(error)}"
        return _line(record, library, f"a message{about} was withheld, of {place[0]}:{place[1]}")

    def _part(self, kind: Kind, value: object) -> str | int | float:
        found = self._rendered(kind, value)
        if found is None:
            self._dropped.add(What.ARGUMENT)
            return WITHHELD
        return found

    def _rendered(self, kind: Kind, value: object) -> str | int | float | None:
        match kind, value:
            case Kind.NUMBER, bool():
                return None
            case Kind.NUMBER, int() | float() if abs(value) < _NUMBER_MAX:
                return value
            case Kind.WORD, Enum():
                return str(value.value)
            case Kind.NAME, str() if value in self._names:
                return value
            case Kind.RECORD, str():
                log, _, number = value.rpartition("#")
                return value if log in self._names and number.isdecimal() else None
            case Kind.TYPE, type():
                return value.__qualname__
            case Kind.CODE, CodeType():
                return value.co_qualname
            case Kind.ERROR, BaseException():
                return describe(value)
        return None


def _put(found: re.Match[str], parts: Iterator[str | int | float]) -> str:
    part = next(parts)
    return part if isinstance(part, str) else found.group() % part


def _line(record: logging.LogRecord, name: str, text: str) -> str:
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return f"{when.replace('+00:00', 'Z')} {record.levelname} {name}: {text}"
