"""What a request's record says about where its payload went.

Policies saw each candidate place with its traits, and the record holds them; a place that no trait says
is on the premises counts as outside, so that a report never names too little.
"""

from collections.abc import Iterator
from typing import Final

from audit.records import Action, Flag, Outcome, Place, PlaceTrait, RequestRecord

NODE: Final = "node:"
# Submitted work is decided again and recorded as `infer` when it is run.
_PAYLOAD: Final = frozenset({Action.INFER, Action.STREAM})
_RAN: Final = _PAYLOAD | {Action.RECEIPT}
# 45 CFR 164.514(b): neither is protected health information.
_NO_PHI: Final = frozenset({"deidentified", "synthetic"})


def ran(record: RequestRecord) -> bool:
    """Say whether a model ran on a subject's data for this request, here or on a device."""
    return (
        record.action in _RAN
        and record.outcome is Outcome.SERVED
        and Flag.FROM_CACHE not in record.flags
        and record.placement is not None
        and record.data_class is not None
    )


def place_of(record: RequestRecord, placement: str) -> Place | None:
    """Return a placement as policies saw it; None where the record does not say."""
    return next((place for place in record.candidates if place.placement == placement), None)


def went_to(record: RequestRecord) -> Iterator[tuple[str, bool]]:
    """Yield each node outside the premises that was sent the payload, and whether it answered."""
    if record.action not in _PAYLOAD or record.carries_payload is False or record.data_class in _NO_PHI:
        return
    if Flag.FROM_CACHE in record.flags:
        return
    tried = [(placement, False) for placement in record.attempted]
    if record.placement is not None and record.outcome is not Outcome.REFUSED:
        tried.append((record.placement, record.outcome is Outcome.SERVED))
    for placement, answered in tried:
        place = place_of(record, placement)
        inside = place is not None and PlaceTrait.ON_PREMISES in place.traits
        if placement.startswith(NODE) and not inside:
            yield placement, answered


def home_and_place(record: RequestRecord) -> tuple[str, str]:
    """Return the jurisdiction of the data and that of the place where it ran; `?` is unknown."""
    place = place_of(record, record.placement or "")
    return record.jurisdiction or "?", (place.jurisdiction if place else "") or "?"


def stayed(home: str, place: str) -> bool:
    """Say whether data of `home` ran in its own country; a state counts as its country."""
    return "?" not in (home, place) and home.partition("-")[0] == place.partition("-")[0]
