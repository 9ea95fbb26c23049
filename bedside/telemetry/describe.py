"""An error in a few words that quote nothing: its type and where it was raised.

The message of an error may quote what a caller sent: pydantic's, msgspec's, ONNX Runtime's and
SQLAlchemy's do. Only errors of ours whose text is put together from numbers and from the site's own
words are let speak; a test reads every place that raises one of them.
"""

import errno
from types import TracebackType
from typing import Final

SPOKEN: Final = frozenset(
    {
        "audit.errors.FollowerLost",
        "audit.errors.LogBusy",
        "audit.errors.LogCorrupt",
        "audit.errors.LogUnavailable",
        "audit.errors.VerificationError",
        "audit.errors.WitnessUnavailable",
        "audit.follow.DeliveryFailed",
        "inference_node.errors.ModelNotReady",
        "policies.errors.BundleForeign",
        "policies.errors.BundleOutdated",
        "policies.errors.BundleUnderSigned",
        "policies.errors.BundleUntrusted",
        "secure_gateway.consent.store.ConsentUnavailable",
        "secure_gateway.work.errors.WorkStoreError",
    }
)
"""Errors whose own words may be written."""

SILENT: Final = "audit.reports."
"""Reports come from outside: what is wrong with one names what stands in its file."""


def describe(error: BaseException) -> str:
    """Return the type of `error`, the module and line that raised it, and its text if it may speak."""
    kind = type(error)
    module, place = _place(error.__traceback__)
    said = _kind(error) + (f" at {place}" if place else "")
    if f"{kind.__module__}.{kind.__qualname__}" in SPOKEN and not module.startswith(SILENT):
        return f"{said}: {' '.join(str(error).split())}"
    return said


def _kind(error: BaseException) -> str:
    name = type(error).__qualname__
    code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    return name if code is None else f"{name} [{code}]"


def _place(traceback: TracebackType | None) -> tuple[str, str]:
    """Return the module that raised, and the same with its line."""
    if traceback is None:
        return "", ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = str(traceback.tb_frame.f_globals.get("__name__", "?"))
    return module, f"{module}:{traceback.tb_lineno}"
