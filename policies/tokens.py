"""Bearer tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037), issued for one site.

Two kinds come in. A token of the site's issuer asserts a principal and its roles, and may assert
facts that then outrank what a caller claims. A device assertion is signed by the enrolled device's
own key, lives at most a minute and is accepted once (after RFC 7523).
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from policies.errors import TokenExpired, TokenInvalid
from policies.facts import DataClass, Purpose, Role

ALGORITHM: Final = "EdDSA"
ASSERTION_LIFETIME_MAX_S: Final = 60
LEEWAY_S: Final = 5
CACHED_TOKENS: Final = 16384
TOKEN_MAX_BYTES: Final = 8192

_PRINCIPAL = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
_DEVICE = re.compile(r"device:[a-z0-9][a-z0-9-]{0,62}")
_JURISDICTION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_ROLES: Final[Mapping[str, Role]] = {role.value: role for role in Role}


class AssertedFacts(Struct, frozen=True, kw_only=True):
    """Facts that a token states; they outrank what the caller claims."""

    subject: str | None = None
    data_class: DataClass | None = None
    jurisdiction: str | None = None
    purpose: Purpose | None = None


NOTHING_ASSERTED: Final = AssertedFacts()


class Principal(Struct, frozen=True, kw_only=True):
    """Who is calling, as a verified token says."""

    id: str
    roles: frozenset[Role]
    asserted: AssertedFacts = NOTHING_ASSERTED


def key_id(key: Ed25519PublicKey) -> str:
    """Return the `kid` of `key`: the first 16 hexadecimal digits of SHA-256 of its raw bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


class TokenIssuer:
    """Issues tokens of one site."""

    def __init__(self, key: Ed25519PrivateKey, site: str) -> None:
        self._key = key
        self._kid = key_id(key.public_key())
        self._site = _audience(site)

    def issue(
        self,
        principal: str,
        roles: Iterable[Role],
        *,
        lifetime_s: int,
        asserted: AssertedFacts = NOTHING_ASSERTED,
    ) -> str:
        """Return a token for `principal`, valid for `lifetime_s` seconds from now.

        Raises:
            TokenInvalid: if the principal's name could not be accepted back.
        """
        if not _PRINCIPAL.fullmatch(principal):
            raise TokenInvalid(
                "a principal's name is 1 to 63 lower-case letters, digits, '.', '_', '@' or '-'"
            )
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._site,
            "aud": self._site,
            "sub": principal,
            "roles": sorted(roles),
            "iat": now,
            "exp": now + lifetime_s,
            "jti": uuid4().hex,
        }
        for name in AssertedFacts.__struct_fields__:
            value = getattr(asserted, name)
            if value is not None:
                claims[name] = value
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})


class TokenVerifier:
    """Verifies tokens of one site's issuer; a token seen before costs a dictionary look-up.

    The cache is keyed by the token itself, holds 16,384 of them at most, and checks the expiry at
    every use.
    """

    def __init__(
        self,
        keys: Iterable[Ed25519PublicKey],
        site: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = {key_id(key): key for key in keys}
        self._site = _audience(site)
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def verify(self, token: bytes) -> Principal:
        """Return the principal that `token` asserts.

        Raises:
            TokenExpired: if its time is over (5 seconds of clock skew are allowed).
            TokenInvalid: if it does not verify for this site, or asserts what is no closed value.
        """
        cached = self._cache.get(token)
        if cached is None:
            cached = self._verify(token)
            self._cache[token] = cached
            if len(self._cache) > CACHED_TOKENS:
                self._cache.popitem(last=False)
        expires, principal = cached
        if self._clock() > expires + LEEWAY_S:
            self._cache.pop(token, None)
            raise TokenExpired("the token has expired")
        return principal

    def _verify(self, token: bytes) -> tuple[float, Principal]:
        header = _header(token)
        key = self._keys.get(header.get("kid", ""))
        if key is None:
            raise TokenInvalid("the token names no key of this site")
        claims = _claims(token, key, self._site, ["iss", "aud", "sub", "roles", "iat", "exp", "jti"])
        subject, roles = claims["sub"], claims["roles"]
        if not _PRINCIPAL.fullmatch(subject):
            raise TokenInvalid("the token's principal is not a valid name")
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise TokenInvalid("the token's roles are not a list of names")
        if not set(roles) <= set(_ROLES):
            raise TokenInvalid("the token asserts a role that does not exist here")
        principal = Principal(
            id=subject,
            roles=frozenset(_ROLES[role] for role in roles),
            asserted=_asserted(claims),
        )
        return float(claims["exp"]), principal


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
    ) -> None:
        self._key_of = key_of
        self._site = _audience(site)
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._swept = 0.0

    def is_assertion(self, token: bytes) -> bool:
        """Say whether `token` presents itself as a device's: its `kid` is `device:<id>`."""
        if len(token) > TOKEN_MAX_BYTES:
            return False
        # The header is the part before the first dot; a device's begins unlike an issuer's, but
        # only parsing tells. Parsed headers of issuers' tokens are few: remember the answer.
        return _is_device_header(token.partition(b".")[0])

    def verify(self, token: bytes) -> Principal:
        """Return the device as a principal with the role `device`.

        Raises:
            TokenExpired: if its time is over.
            TokenInvalid: if it is not signed by an enrolled device's key, lives longer than 60 s,
                or was used before.
        """
        device = _header(token).get("kid", "")
        key = self._key_of(device) if _DEVICE.fullmatch(device) else None
        if key is None:
            raise TokenInvalid("the device is not enrolled")
        claims = _claims(token, key, self._site, ["iss", "aud", "sub", "iat", "exp", "jti"], device)
        now = self._clock()
        if claims["sub"] != device:
            raise TokenInvalid("a device speaks only for itself")
        if claims["exp"] - claims["iat"] > ASSERTION_LIFETIME_MAX_S:
            raise TokenInvalid(f"a device assertion lives at most {ASSERTION_LIFETIME_MAX_S} s")
        if now > claims["exp"] + LEEWAY_S:
            raise TokenExpired("the device assertion has expired")
        self._use_once(f"{device} {claims['jti']}", claims["exp"] + LEEWAY_S, now)
        return Principal(id=device, roles=frozenset({Role.DEVICE}))

    def _use_once(self, token_id: str, until: float, now: float) -> None:
        if now - self._swept > ASSERTION_LIFETIME_MAX_S:
            self._seen = {seen: expiry for seen, expiry in self._seen.items() if expiry >= now}
            self._swept = now
        if token_id in self._seen:
            raise TokenInvalid("the device assertion was used before")
        self._seen[token_id] = until


def _audience(site: str) -> str:
    return f"bedside:{site}"


_device_headers: OrderedDict[bytes, bool] = OrderedDict()


def _is_device_header(encoded: bytes) -> bool:
    known = _device_headers.get(encoded)
    if known is None:
        try:
            known = str(_header(encoded + b".e30.").get("kid", "")).startswith("device:")
        except TokenInvalid:
            known = False
        _device_headers[encoded] = known
        if len(_device_headers) > CACHED_TOKENS:
            _device_headers.popitem(last=False)
    return known


def _header(token: bytes) -> dict[str, Any]:
    if len(token) > TOKEN_MAX_BYTES:
        raise TokenInvalid(f"a token is at most {TOKEN_MAX_BYTES} bytes long")
    try:
        return jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise TokenInvalid("the token is not a signed JWT") from error


def _claims(
    token: bytes,
    key: Ed25519PublicKey,
    audience: str,
    required: list[str],
    issuer: str | None = None,
) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer or audience,
            # The expiry is checked by the caller, with its own clock and at every use.
            options={"require": required, "verify_exp": False},
            leeway=LEEWAY_S,
        )
    except jwt.InvalidTokenError as error:
        raise TokenInvalid("the token does not verify for this site") from error
    if not all(isinstance(claims[name], int) for name in ("iat", "exp")):
        raise TokenInvalid("the token's times are not whole seconds")
    if not isinstance(claims["sub"], str) or not isinstance(claims["jti"], str):
        raise TokenInvalid("the token's sub and jti are not text")
    return claims


def _asserted(claims: Mapping[str, Any]) -> AssertedFacts:
    if not any(name in claims for name in AssertedFacts.__struct_fields__):
        return NOTHING_ASSERTED
    try:
        asserted = AssertedFacts(
            subject=claims.get("subject"),
            data_class=DataClass(claims["data_class"]) if "data_class" in claims else None,
            jurisdiction=claims.get("jurisdiction"),
            purpose=Purpose(claims["purpose"]) if "purpose" in claims else None,
        )
    except ValueError as error:
        raise TokenInvalid("the token asserts a fact outside its closed set") from error
    if asserted.jurisdiction is not None and not (
        isinstance(asserted.jurisdiction, str) and _JURISDICTION.fullmatch(asserted.jurisdiction)
    ):
        raise TokenInvalid("the token's jurisdiction is not an ISO 3166 code")
    if asserted.subject is not None and not isinstance(asserted.subject, str):
        raise TokenInvalid("the token's subject is not text")
    return asserted
