"""What comes in: forms and queries, bounded and checked; no error repeats anything of them."""

import urllib.parse
from collections.abc import Mapping
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
