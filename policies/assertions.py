"""Device assertions: JWTs that an enrolled device signs with its own key (after RFC 7523).

Each lives a minute at most and is accepted once. `iss` and `sub` are `device:<id>`, which is also the
`kid`, and `aud` is the site.
"""

import re
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.cache import LruCache
from policies.errors import TokenExpired, TokenInvalid
from policies.facts import CallerKind, Role
from policies.signed_claims import (
    LEEWAY_S,
    TOKEN_MAX_BYTES,
    audience_of,
    key_name,
    site_of,
    verified_claims,
)
from policies.tokens import Belonging, Principal

ASSERTION_LIFETIME_MAX_S: Final = 60
# 250 a second from each device, in 2 MB: beyond it a device harms itself only.
LIVE_ASSERTIONS_MAX: Final = 16384
REQUIRED_CLAIMS: Final = ("iss", "aud", "sub", "iat", "exp", "jti")

_DEVICE = re.compile(r"device:[a-z0-9][a-z0-9-]{0,62}")
_HEADERS_CACHED: Final = 4096
_HEADER_MAX_BYTES: Final = 512


class DeviceVerifier:
    """Verifies assertions that enrolled devices sign themselves.

    `key_of` returns the key of `device:<id>`, or None for a device that is not enrolled (any more).
    """

    def __init__(
        self,
        key_of: Callable[[str], Ed25519PublicKey | None],
        site: str,
        *,
        clock: Callable[[], float] = time.time,
        leeway_s: int = LEEWAY_S,
    ) -> None:
        self._key_of = key_of
        self._site = audience_of(site)
        self._clock = clock
        self._leeway_s = leeway_s
        self._headers: LruCache[bytes, str] = LruCache(_HEADERS_CACHED)
        self._used: dict[str, dict[str, int]] = {}
        self._swept = 0.0

    def is_assertion(self, token: bytes) -> bool:
        """Say whether `token` presents itself as a device's: its `kid` is `device:<id>`.

        The header, up to the first dot, is the same in all tokens of one signer: what it says is
        remembered, so that the answer costs a look-up for each request.
        """
        header = token.partition(b".")[0]
        if len(token) > TOKEN_MAX_BYTES or len(header) > _HEADER_MAX_BYTES:
            return False
        name = self._headers.get(header)
        if name is None:
            try:
                name = key_name(header + b".e30.")
            except TokenInvalid:
                return False
            self._headers.put(header, name)
        return name.startswith("device:")

    def verify(self, token: bytes) -> Principal:
        """Return the device as a principal with the role `device`.

        Raises:
            TokenExpired: if its time is over.
            TokenInvalid: if it is not signed by an enrolled device's key, lives longer than 60 s,
                or was used before.
        """
        device = key_name(token)
        key = self._key_of(device) if _DEVICE.fullmatch(device) else None
        if key is None:
            raise TokenInvalid("the device is not enrolled")
        now = self._clock()
        claims = verified_claims(
            token,
            key,
            audience=self._site,
            issuer=device,
            required=REQUIRED_CLAIMS,
            now=now,
            leeway_s=self._leeway_s,
        )
        if claims["sub"] != device:
            raise TokenInvalid("a device speaks only for itself")
        if claims["exp"] - claims["iat"] > ASSERTION_LIFETIME_MAX_S:
            raise TokenInvalid(f"a device assertion lives at most {ASSERTION_LIFETIME_MAX_S} s")
        until = claims["exp"] + self._leeway_s
        if now > until:
            raise TokenExpired("the device assertion has expired")
        self._use_once(device, claims["jti"], until, now)
        site = site_of(self._site)
        return Principal(
            id=device,
            roles=frozenset({Role.DEVICE}),
            said=Belonging(kind=CallerKind.DEVICE, site=site, organisation=site),
        )

    def again(self, principal: Principal) -> Principal:
        """Return the device, whose assertion was verified when its call came in, if it is still one.

        Raises:
            TokenInvalid: if it is not enrolled any more.
        """
        if self._key_of(principal.id) is None:
            raise TokenInvalid("the device is not enrolled")
        return principal

    def _use_once(self, device: str, token_id: str, until: int, now: float) -> None:
        if now - self._swept > ASSERTION_LIFETIME_MAX_S:
            live = {name: _live(used, now) for name, used in self._used.items()}
            self._used = {name: used for name, used in live.items() if used}
            self._swept = now
        used = self._used.setdefault(device, {})
        if token_id in used:
            raise TokenInvalid("the device assertion was used before")
        if len(used) >= LIVE_ASSERTIONS_MAX:
            raise TokenInvalid(
                f"a device has at most {LIVE_ASSERTIONS_MAX} assertions a minute; use one connection"
            )
        used[token_id] = until


def _live(used: dict[str, int], now: float) -> dict[str, int]:
    return {token_id: until for token_id, until in used.items() if until >= now}
