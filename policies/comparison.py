"""How a request would fare under another bundle, in four words."""

from collections.abc import Sequence
from enum import StrEnum

from policies.decision import Decision


class Change(StrEnum):
    """What another bundle would have changed for a request.

    `moved` means that it would not have run where it ran; `obligations` that it would have run under
    others.
    """

    PERMITTED = "permitted"
    REFUSED = "refused"
    MOVED = "moved"
    OBLIGATIONS = "obligations"


def changes(
    decision: Decision, *, permitted: bool, obligations: Sequence[str], placement: str | None
) -> tuple[Change, ...]:
    """Return what `decision` changes for a request that was `permitted` or not.

    `placement` is where it ran or would have run, and `obligations` are those that held.
    """
    if not decision.permitted:
        return (Change.REFUSED,) if permitted else ()
    if not permitted:
        return (Change.PERMITTED,)
    found = []
    if placement is not None and placement not in decision.permitted:
        found.append(Change.MOVED)
    if tuple(obligations) != decision.obligations:
        found.append(Change.OBLIGATIONS)
    return tuple(found)
