"""Stage 1, who: turn the Authorization header into a principal, or refuse."""

from audit.records import Problem
from policies import DeviceVerifier, Principal, TokenExpired, TokenInvalid, TokenVerifier
from secure_gateway.errors import Refusal

_BEARER = b"bearer "


class Authenticator:
    """Accepts bearer tokens of the site and assertions that enrolled devices sign themselves."""

    def __init__(self, tokens: TokenVerifier, devices: DeviceVerifier) -> None:
        self._tokens = tokens
        self._devices = devices

    def remembered(self, authorization: bytes) -> Principal | None:
        """Return who is calling, where that costs no more than a look-up; None says nothing.

        What a device signs is used up by looking at it, so it is never known here.
        """
        return self._tokens.remembered(authorization[7:]) if _is_bearer(authorization) else None

    def authenticate(self, authorization: bytes | None, known: Principal | None = None) -> Principal:
        """Return who is calling; `known` is whom this said of the same `authorization` before.

        What a device signs counts once, and then for all of the call that it came with, while the
        device is enrolled. A token is looked at each time: it may have expired meanwhile.

        Raises:
            Refusal: token-missing, token-invalid or token-expired.
        """
        if authorization is None:
            raise Refusal(Problem.TOKEN_MISSING, "Send `Authorization: Bearer <token>`.")
        if not _is_bearer(authorization):
            raise Refusal(Problem.TOKEN_INVALID, "Only the Bearer scheme is understood.")
        token = authorization[7:]
        # What was verified as the issuer's is no device's: those are never remembered.
        remembered = self._tokens.remembered(token)
        if remembered is not None:
            return remembered
        try:
            if self._devices.is_assertion(token):
                return self._devices.verify(token) if known is None else self._devices.again(known)
            return self._tokens.verify(token)
        except TokenExpired as error:
            raise Refusal(
                Problem.TOKEN_EXPIRED, "The token has expired; ask your issuer for a fresh one."
            ) from error
        except TokenInvalid as error:
            raise Refusal(
                Problem.TOKEN_INVALID,
                "The token was not issued for this site, or its signature does not verify.",
            ) from error


def _is_bearer(authorization: bytes) -> bool:
    return authorization.startswith(b"Bearer ") or authorization[:7].lower() == _BEARER
