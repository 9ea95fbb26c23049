"""JWTs (RFC 7519) signed with Ed25519 (RFC 8037), as both kinds of bearer token here are.

No error carries what the token says, nor as its cause: causes end in tracebacks, and so in logs.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.errors import TokenInvalid

ALGORITHM: Final = "EdDSA"
LEEWAY_S: Final = 5
TOKEN_MAX_BYTES: Final = 8192
TOKEN_ID_MAX_CHARACTERS: Final = 64


def key_id(key: Ed25519PublicKey) -> str:
    """Return the `kid` of `key`: the first 16 hexadecimal digits of SHA-256 of its raw bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def audience_of(site: str) -> str:
    """Return what tokens of `site` name as their audience, and its issuer as its name."""
    return f"bedside:{site}"


def site_of(audience: str) -> str:
    """Return the site that an audience names."""
    return audience.removeprefix("bedside:")


def key_name(token: bytes) -> str:
    """Return the `kid` that `token` names, or nothing; it is only a claim until the token verifies.

    Raises:
        TokenInvalid: if it is no signed JWT.
    """
    if len(token) > TOKEN_MAX_BYTES:
        raise TokenInvalid(f"a token is at most {TOKEN_MAX_BYTES} bytes long")
    try:
        return str(jwt.get_unverified_header(token).get("kid", ""))
    except (jwt.InvalidTokenError, RecursionError):
        raise TokenInvalid("the token is not a signed JWT") from None


def verified_claims(
    token: bytes,
    key: Ed25519PublicKey,
    *,
    audience: str,
    issuer: str,
    required: Sequence[str],
    now: float,
    leeway_s: int,
) -> dict[str, Any]:
    """Return what `token` claims, once `key` is seen to have signed it for `audience`.

    `iat` and `exp` are whole numbers and `sub` and `jti` text. `now` is seconds since 1970. The expiry
    is left to the caller, who asks at every use.

    Raises:
        TokenInvalid: if it does not verify, lacks one of the `required` claims, or was issued in the
            future.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer,
            options={"require": list(required), "verify_exp": False, "verify_iat": False},
            leeway=leeway_s,
        )
    except (jwt.InvalidTokenError, RecursionError):
        raise TokenInvalid("the token does not verify for this site") from None
    # A truth value is an int to Python, and a time to nobody.
    if not all(type(claims[name]) is int for name in ("iat", "exp")):
        raise TokenInvalid("the token's times are not whole seconds")
    if claims["iat"] > now + leeway_s:
        raise TokenInvalid("the token was issued in the future; compare the clocks")
    if not all(isinstance(claims[name], str) for name in ("sub", "jti")):
        raise TokenInvalid("the token's sub and jti are not text")
    if not 0 < len(claims["jti"]) <= TOKEN_ID_MAX_CHARACTERS:
        raise TokenInvalid(f"the token's jti is not 1 to {TOKEN_ID_MAX_CHARACTERS} characters long")
    return claims
