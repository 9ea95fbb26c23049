"""Bearer tokens of a site's issuer: they assert a principal, its roles, and where it belongs.

They may also assert facts, which then outrank what a caller claims. The other kind of bearer token,
which a device signs itself, is in `policies.assertions`.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final
from uuid import uuid4

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from policies.cache import LruCache
from policies.errors import TokenExpired, TokenInvalid
from policies.facts import JURISDICTION, NAME, Caller, CallerKind, DataClass, Purpose, Role
from policies.signed_claims import (
    ALGORITHM,
    LEEWAY_S,
    audience_of,
    key_id,
    key_name,
    site_of,
    verified_claims,
)

CACHED_TOKENS: Final = 16384
REQUIRED_CLAIMS: Final = ("iss", "aud", "sub", "roles", "iat", "exp", "jti")

_PRINCIPAL = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
_ROLES: Final[Mapping[str, Role]] = {role.value: role for role in Role}


class AssertedFacts(Struct, frozen=True, kw_only=True):
    """Facts that a token states; they outrank what the caller claims."""

    subject: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    data_class: DataClass | None = None
    jurisdiction: Annotated[str, Meta(pattern=f"^{JURISDICTION.pattern}$")] | None = None
    purpose: Purpose | None = None
    consent: bool | None = None


NOTHING_ASSERTED: Final = AssertedFacts()

Name = Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]


class Belonging(Struct, frozen=True, kw_only=True):
    """What kind of caller a token says that its principal is, and where that one belongs."""

    kind: CallerKind | None = None
    site: Name | None = None
    organisation: Name | None = None


NOTHING_SAID: Final = Belonging()


class Principal(Struct, frozen=True, kw_only=True):
    """Who is calling, as a verified token says."""

    id: str
    roles: frozenset[Role]
    asserted: AssertedFacts = NOTHING_ASSERTED
    said: Belonging = NOTHING_SAID

    @property
    def kind(self) -> CallerKind:
        """What kind of caller this is; what its token does not say follows from its roles."""
        if self.said.kind is not None:
            return self.said.kind
        if Role.DEVICE in self.roles:
            return CallerKind.DEVICE
        return CallerKind.APP if Role.APP in self.roles else CallerKind.USER

    @property
    def caller(self) -> Caller:
        """All that policies can tell of this principal."""
        return Caller(
            roles=self.roles,
            kind=self.kind,
            site=self.said.site or "",
            organisation=self.said.organisation or "",
        )


class TokenIssuer:
    """Issues tokens of one site."""

    def __init__(self, key: Ed25519PrivateKey, site: str) -> None:
        self._key = key
        self._kid = key_id(key.public_key())
        self._site = audience_of(site)

    def issue(
        self,
        principal: str,
        roles: Iterable[Role],
        *,
        lifetime_s: int,
        asserted: AssertedFacts = NOTHING_ASSERTED,
        said: Belonging = NOTHING_SAID,
    ) -> str:
        """Return a token for `principal`, valid for `lifetime_s` seconds from now.

        Raises:
            TokenInvalid: if what it would say could not be accepted back.
        """
        if not _PRINCIPAL.fullmatch(principal):
            raise TokenInvalid(
                "a principal's name is 1 to 63 lower-case letters, digits, '.', '_', '@' or '-'"
            )
        facts = {**msgspec.to_builtins(asserted), **msgspec.to_builtins(said)}
        _asserted(facts)
        _belonging(facts)
        now = int(time.time())
        claims = {
            "iss": self._site,
            "aud": self._site,
            "sub": principal,
            "roles": sorted(set(roles)),
            "iat": now,
            "exp": now + lifetime_s,
            "jti": uuid4().hex,
            **{name: value for name, value in facts.items() if value is not None},
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})


class TokenVerifier:
    """Verifies tokens of one site's issuer; a token seen before costs a dictionary look-up.

    What was verified is remembered by the token itself, `cached_tokens` of them at most, and the
    expiry is checked at every use.
    """

    def __init__(
        self,
        keys: Iterable[Ed25519PublicKey],
        site: str,
        *,
        clock: Callable[[], float] = time.time,
        cached_tokens: int = CACHED_TOKENS,
        leeway_s: int = LEEWAY_S,
    ) -> None:
        self._keys = {key_id(key): key for key in keys}
        self._site = audience_of(site)
        self._clock = clock
        self._leeway_s = leeway_s
        self._verified: LruCache[bytes, tuple[int, Principal]] = LruCache(cached_tokens)

    def verify(self, token: bytes | str) -> Principal:
        """Return the principal that `token` asserts.

        Raises:
            TokenExpired: if its time is over; `leeway_s` seconds of clock skew are allowed.
            TokenInvalid: if it does not verify for this site, or asserts what is no closed value.
        """
        if isinstance(token, str):
            token = token.encode()
        now = self._clock()
        verified = self._verified.get(token)
        expires, principal = verified or self._verify(token, now)
        if now > expires + self._leeway_s:
            self._verified.drop(token)
            raise TokenExpired("the token has expired")
        if verified is None:
            self._verified.put(token, (expires, principal))
        return principal

    def remembered(self, token: bytes) -> Principal | None:
        """Return what a token that was verified before asserts, while it is valid; never verify one."""
        verified = self._verified.get(token)
        if verified is None or self._clock() > verified[0] + self._leeway_s:
            return None
        return verified[1]

    def _verify(self, token: bytes, now: float) -> tuple[int, Principal]:
        key = self._keys.get(key_name(token))
        if key is None:
            raise TokenInvalid("the token names no key of this site")
        claims = verified_claims(
            token,
            key,
            audience=self._site,
            issuer=self._site,
            required=REQUIRED_CLAIMS,
            now=now,
            leeway_s=self._leeway_s,
        )
        if not _PRINCIPAL.fullmatch(claims["sub"]):
            raise TokenInvalid("the token's principal is not a valid name")
        principal = Principal(
            id=claims["sub"],
            roles=_roles(claims["roles"]),
            asserted=_asserted(claims),
            said=self._where(_belonging(claims)),
        )
        return claims["exp"], principal

    def _where(self, said: Belonging) -> Belonging:
        """Return where a principal belongs: to this site, and to nobody else, if nothing is said."""
        site = said.site or site_of(self._site)
        return msgspec.structs.replace(said, site=site, organisation=said.organisation or site)


def _roles(names: object) -> frozenset[Role]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TokenInvalid("the token's roles are not a list of names")
    if not _ROLES.keys() >= set(names):
        raise TokenInvalid("the token asserts a role that does not exist here")
    return frozenset(_ROLES[name] for name in names)


def _asserted(claims: Mapping[str, Any]) -> AssertedFacts:
    if not any(name in claims for name in AssertedFacts.__struct_fields__):
        return NOTHING_ASSERTED
    try:
        return msgspec.convert(claims, AssertedFacts)
    except msgspec.ValidationError:
        raise TokenInvalid("the token asserts a fact outside its closed set") from None


def _belonging(claims: Mapping[str, Any]) -> Belonging:
    try:
        return msgspec.convert(claims, Belonging)
    except msgspec.ValidationError:
        raise TokenInvalid(
            "the token's kind is no kind of caller, or its site or organisation is no name"
        ) from None
