"""What comes in: forms and queries, bounded and checked; no error repeats anything of them."""

import urllib.parse
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

from starlette.requests import Request

from console.errors import FormInvalid

FORM_LIMIT_BYTES: Final = 16 * 1024
FIELDS_MAX: Final = 40
FORM_TYPE: Final = "application/x-www-form-urlencoded"


class FormTooLarge(FormInvalid):
    """Raised when a form has more than 16 KiB."""


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form that was sent in a body.

    Raises:
        FormInvalid: if it is not one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise FormInvalid("a form is sent as application/x-www-form-urlencoded")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT_BYTES:
            raise FormTooLarge("the form is too large")
    return parse_fields(bytes(body))


def parse_fields(data: bytes) -> dict[str, list[str]]:
    """Return the fields of a form or a query.

    Raises:
        FormInvalid: if they are malformed, or too many.
    """
    try:
        return urllib.parse.parse_qs(
            data.decode("ascii"), errors="strict", encoding="utf-8", max_num_fields=FIELDS_MAX
        )
    except (ValueError, UnicodeError) as error:
        raise FormInvalid("the form is malformed") from error


def one(fields: Mapping[str, list[str]], name: str) -> str | None:
    """Return the value of a field that may stand once; None if it is empty or not there.

    Raises:
        FormInvalid: if it is there more than once.
    """
    values = fields.get(name, [])
    if len(values) > 1:
        raise FormInvalid(f"the field `{name}` is there more than once", name)
    text = values[0].strip() if values else ""
    return text or None


def required(fields: Mapping[str, list[str]], name: str) -> str:
    """Return the value of a field.

    Raises:
        FormInvalid: if there is none, or more than one.
    """
    value = one(fields, name)
    if value is None:
        raise FormInvalid(f"the field `{name}` is missing", name)
    return value


def days(fields: Mapping[str, list[str]]) -> tuple[datetime | None, datetime | None]:
    """Return when the day in `since` begins, and when that in `until` is over; None for no bound.

    Raises:
        FormInvalid: if either holds no day.
    """
    since, until = _day(fields, "since"), _day(fields, "until")
    return None if since is None else midnight(since), None if until is None else over(until)


def midnight(day: date) -> datetime:
    """Return when a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def over(day: date) -> datetime | None:
    """Return when a day is over; None for the last one that there is."""
    return None if day == date.max else midnight(day + timedelta(days=1))


def _day(fields: Mapping[str, list[str]], name: str) -> date | None:
    text = one(fields, name)
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise FormInvalid(f"the field `{name}` holds no day") from error
