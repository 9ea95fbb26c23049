"""Consent: recorded with scope and expiry, asked for at every request, withdrawn from the next."""

from secure_gateway.consent.believe import Consents
from secure_gateway.consent.settings import ConsentSettings
from secure_gateway.consent.store import ConsentRegistry

__all__ = ["ConsentRegistry", "ConsentSettings", "Consents"]
