"""Tells a webhook of records, signed as Standard Webhooks has it (standardwebhooks.com, version 1).

    webhook-id          <log>#<number> of the record, the same however often it is sent
    webhook-timestamp   when this try was made, in seconds since 1970
    webhook-signature   v1,<base64 of HMAC-SHA-256 over "<id>.<timestamp>.<body>">

The body says what happened and where its record stands: enumerated values, identifiers and times of
that record, and not whom it is about.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
import msgspec

from audit.follow import DeliveryFailed, Entry
from audit.records import Action, AnyRecord, RequestRecord
from policies import Obligation
from secure_gateway.errors import GatewayError

KIND: Final = "bedside.request"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 how such secrets begin, not one
SECRET_BYTES_MIN: Final = 24

# A submission is told of when it is run, the end of a stream when it began.
_UNTOLD: Final = (Action.SUBMIT, Action.STREAM_END)

_TOLD: Final = (
    "id",
    "action",
    "outcome",
    "problem",
    "principal",
    "roles",
    "model",
    "model_version",
    "data_class",
    "jurisdiction",
    "purpose",
    "consent",
    "emergency",
    "placement",
    "policies",
    "obligations",
    "flags",
)


class SecretInvalid(GatewayError):
    """Raised when the secret that messages are signed with is none."""


def notification_wanted(record: AnyRecord) -> bool:
    """Say whether policy obliges to tell somebody of `record`."""
    return (
        isinstance(record, RequestRecord)
        and Obligation.NOTIFY in record.obligations
        and record.action not in _UNTOLD
    )


class Webhook:
    """Posts one message for each record; a receiver takes it with any status from 200 to 299."""

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Post to `url`; `secret` is text of at least 24 bytes, or `whsec_` and base64 of as many.

        Raises:
            SecretInvalid: if it is neither.
        """
        self._url = url
        self._key = _key_of(secret)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, entries: Sequence[Entry]) -> int:
        """Tell of `entries`, one after the other; none is refused for good.

        Raises:
            DeliveryFailed: if one was not taken.
        """
        for entry in entries:
            await self._post(entry)
        return 0

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _post(self, entry: Entry) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        body = msgspec.json.encode(message(entry))
        moment = str(int(self._clock()))
        headers = {
            "content-type": "application/json",
            "webhook-id": entry.reference,
            "webhook-timestamp": moment,
            "webhook-signature": self._signature(entry.reference, moment, body),
        }
        try:
            # Elsewhere nobody agreed to be told.
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DeliveryFailed(f"the webhook does not answer ({type(error).__name__})") from error
        if not 200 <= status < 300:
            raise DeliveryFailed(f"the webhook answered with status {status}")

    def _signature(self, name: str, moment: str, body: bytes) -> str:
        signed = b".".join((name.encode(), moment.encode(), body))
        mac = hmac.new(self._key, signed, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(mac).decode()}"


def message(entry: Entry) -> dict[str, Any]:
    """Return what is told of a record."""
    record = entry.record
    data = {name: getattr(record, name) for name in _TOLD}
    told = {name: value for name, value in data.items() if value not in (None, ())}
    return {
        "type": KIND,
        "timestamp": record.time,
        "data": {"log": entry.log, "number": entry.number, **told},
    }


def _key_of(secret: str) -> bytes:
    key = secret.encode()
    if secret.startswith(SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise SecretInvalid("the webhook's secret begins with whsec_ and is not base64") from None
    if len(key) < SECRET_BYTES_MIN:
        raise SecretInvalid(f"the webhook's secret has at least {SECRET_BYTES_MIN} bytes")
    return key
