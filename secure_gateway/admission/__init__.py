"""Who is let in now: how much may be under way at once, and how much each caller may ask for."""

from secure_gateway.admission.break_glass import BreakGlassLimit
from secure_gateway.admission.callers import CallerLimits
from secure_gateway.admission.concurrency import ConcurrencyLimit
from secure_gateway.admission.door import Door
from secure_gateway.admission.settings import AdmissionSettings, CallerAllowance, LimitSettings

__all__ = [
    "AdmissionSettings",
    "BreakGlassLimit",
    "CallerAllowance",
    "CallerLimits",
    "ConcurrencyLimit",
    "Door",
    "LimitSettings",
]
