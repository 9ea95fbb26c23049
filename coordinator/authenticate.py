"""Who is calling, and whether their roles may do what they ask; denied unless a policy permits it."""

from typing import Any

from fastapi import Depends, Request

from coordinator.parts import CoordinatorParts
from coordinator.problems import Refused
from policies import ApiAction, Principal, TokenExpired, TokenInvalid


def allow(parts: CoordinatorParts, action: ApiAction) -> Any:  # noqa: ANN401 a FastAPI dependency
    """Return a dependency that gives the caller, or refuses the request (401, 403)."""

    async def authorize(request: Request) -> Principal:
        principal = await authenticate(parts, request.headers.get("authorization"))
        check(parts, principal, action)
        return principal

    return Depends(authorize)


def check(parts: CoordinatorParts, principal: Principal, action: ApiAction) -> None:
    """Refuse (403) what no policy permits the roles of `principal`."""
    decision = parts.engine.authorize(principal.caller, action)
    if not decision.allowed:
        raise Refused(
            403,
            "policy-refused",
            f"None of the caller's roles may do {action.value}.",
            policies=decision.policies,
            citations=decision.citations,
        )


async def authenticate(parts: CoordinatorParts, header: str | None) -> Principal:
    """Return who sent the `Authorization` header, or refuse (401)."""
    if header is None:
        raise Refused(401, "token-missing", "Send `Authorization: Bearer <token>`.")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Refused(401, "token-invalid", "Only the Bearer scheme is understood.")
    encoded = token.encode("latin-1")
    try:
        if not parts.devices.is_assertion(encoded):
            return parts.tokens.verify(encoded)
        await parts.keys.refresh(parts.registry)
        return parts.devices.verify(encoded)
    except TokenExpired as error:
        raise Refused(401, "token-expired", "The token has expired.") from error
    except TokenInvalid as error:
        raise Refused(401, "token-invalid", "The token does not verify for this site.") from error
