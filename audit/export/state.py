"""How far each destination got in each log: for metrics, for people, and for whatever prunes a log.

<data>/export/<destination>/<log>.json   the follower's place (audit.follow)
<data>/export/<destination>/begun        there once the first start found all places
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from audit.errors import VerificationError
from audit.follow import read_position
from audit.publish import CHECKPOINT
from audit.source import LogSource
from audit.verify import read_checkpoint

BEGUN: Final = "begun"


class ExportState(Struct, frozen=True, kw_only=True):
    """Where one destination stands in one log.

    `next` is the first record that it did not take, of `published`; no record from `next` on may be
    pruned. `refused` counts the records before it that it would never take.
    """

    destination: str
    log: str
    next: int
    published: int
    refused: int

    @property
    def lag(self) -> int:
        """How many published records the destination has yet to take."""
        return max(0, self.published - self.next)


def position_path(folder: Path, destination: str, log: Path) -> Path:
    """Return where a destination's place in the log of folder `log` is kept."""
    return folder / destination / f"{log.name}.json"


def export_states(
    folder: Path, destinations: Iterable[str], sources: Iterable[LogSource]
) -> Iterator[ExportState]:
    """Yield where each destination stands in each published log; at 0 where it has not begun.

    Raises:
        FollowerLost: if a place says nothing.
        VerificationError: if a log's checkpoint does not verify.
    """
    logs = [source for source in sources if (source.folder / CHECKPOINT).is_file()]
    for destination in destinations:
        for source in logs:
            place = read_position(position_path(folder, destination, source.folder))
            published = read_checkpoint(source.folder, source.verifier).size
            if place is not None and place.log != source.verifier.name:
                raise VerificationError(f"the place of {destination} is of another log")
            yield ExportState(
                destination=destination,
                log=source.verifier.name,
                next=0 if place is None else place.next,
                published=published,
                refused=0 if place is None else place.refused,
            )
