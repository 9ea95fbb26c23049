"""Signed placements: what the gateway told a device, so that a receipt can be matched to it.

The token is a JWT (RFC 7519, EdDSA) that only the gateway can make and read back. It carries the
decision's own words, so a receipt can be recorded after a restart, by any replica with the key.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from audit.records import Problem
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Exchange

AUDIENCE = "bedside:receipt"

# A device may have been offline for long before it can deliver its receipt.
RECEIPT_LIFETIME = timedelta(days=30)


class Placed(Struct, frozen=True, kw_only=True):
    """What was decided, as the receipt's record repeats it."""

    id: UUID
    principal: str
    roles: tuple[str, ...]
    subject: str | None
    model: str
    model_version: str
    model_digest: str | None
    data_class: str
    jurisdiction: str
    purpose: str
    consent: bool
    emergency: bool
    placement: str
    policies: tuple[str, ...]
    obligations: tuple[str, ...]
    bundle: str


class PlacementTokens:
    """Signs placements and reads them back from receipts."""

    def __init__(self, key: Ed25519PrivateKey, site: str) -> None:
        self._key = key
        self._public_key = key.public_key()
        self._issuer = f"bedside:{site}"

    def issue(self, exchange: Exchange) -> str:
        """Return the signed placement of a decided exchange."""
        principal, facts, decision = exchange.principal, exchange.facts, exchange.decision
        model, placement = exchange.model, exchange.placement
        if not (principal and facts and decision and model and placement):
            message = "only a decided exchange has a placement"
            raise AssertionError(message)
        placed = Placed(
            id=exchange.id,
            principal=principal.id,
            roles=tuple(sorted(principal.roles)),
            subject=exchange.pseudonym,
            model=model.name,
            model_version=model.version,
            model_digest=model.digest,
            data_class=facts.data_class,
            jurisdiction=facts.jurisdiction,
            purpose=facts.purpose,
            consent=facts.consent,
            emergency=facts.emergency,
            placement=placement,
            policies=decision.policies,
            obligations=decision.obligations,
            bundle=decision.bundle_digest,
        )
        claims = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "exp": datetime.now(UTC) + RECEIPT_LIFETIME,
            "placed": msgspec.to_builtins(placed),
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA")

    def read(self, token: str) -> Placed:
        """Return the placement that `token` carries.

        Raises:
            Refusal: facts-invalid, if this gateway did not sign it or it is too old.
        """
        try:
            claims = jwt.decode(
                token,
                self._public_key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=self._issuer,
                options={"require": ["exp", "placed"]},
            )
            return msgspec.convert(claims["placed"], Placed)
        except (jwt.InvalidTokenError, msgspec.ValidationError) as error:
            raise Refusal(
                Problem.FACTS_INVALID,
                "The receipt's token is not one this gateway gave out, or is older than 30 days.",
            ) from error
