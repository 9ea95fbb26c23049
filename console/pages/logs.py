"""The state of the site's logs: size and root, who cosigned them, and how far they are indexed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from audit import VerificationError, WitnessKey
from audit.cosignature import cosignatures_of
from audit.reports import LogSource
from audit.verify import read_checkpoint, read_cosigned
from console.words import clock, replica


class Seen(Struct, frozen=True, kw_only=True):
    """A witness that cosigned a log's checkpoint, and when."""

    witness: str
    time: str


class LogState(Struct, frozen=True, kw_only=True):
    """One log; `tone` says whether all is well, `word` in a word or two."""

    origin: str
    name: str
    size: int
    root: str
    indexed: int
    seen: tuple[Seen, ...]
    tone: str
    word: str


def log_states(
    sources: Sequence[LogSource],
    indexed: Mapping[str, int],
    *,
    witnesses: Sequence[WitnessKey],
    quorum: int,
) -> list[LogState]:
    """Return the state of each log, and how the `witnesses` saw it; blocking."""
    states = []
    for source in sources:
        origin = source.verifier.name
        try:
            checkpoint = read_checkpoint(source.folder, source.verifier)
            seen = read_cosigned(source.folder, source.verifier)
            cosigned = cosignatures_of(seen.note, witnesses)
        except VerificationError:
            states.append(
                LogState(
                    origin=origin,
                    name=replica(origin),
                    size=0,
                    root="",
                    indexed=indexed.get(origin, 0),
                    seen=(),
                    tone="alert",
                    word="does not verify",
                )
            )
            continue
        enough = len(cosigned) >= quorum
        states.append(
            LogState(
                origin=origin,
                name=replica(origin),
                size=checkpoint.size,
                root=checkpoint.root.hex(),
                indexed=indexed.get(origin, 0),
                seen=tuple(
                    Seen(witness=one.witness.name, time=clock(datetime.fromtimestamp(one.time, UTC)))
                    for one in cosigned
                ),
                tone="calm" if enough else "alert",
                word=_word(bool(witnesses), enough),
            )
        )
    return states


def _word(asked: bool, enough: bool) -> str:
    if not asked:
        return "signed"
    return "cosigned" if enough else "too few witnesses"
