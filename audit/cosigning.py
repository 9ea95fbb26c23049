"""Collects cosignatures: what a log asks of its witnesses before it publishes a checkpoint.

A witness's word counts only where its own key verifies it. One that is dead, lies or answers nonsense
costs a round its time-out and nothing else, as long as enough others answer.
"""

import asyncio
import base64
import logging
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import aiohttp
from msgspec import Struct

from audit.checkpoint import Checkpoint
from audit.cosignature import Cosignature, WitnessKey, cosignatures_of
from audit.errors import VerificationError
from audit.note import split_note

TIMEOUT_S: Final = 5.0
# Once enough have cosigned, the others are waited for no longer than this.
GRACE_S: Final = 0.5
ANSWER_MAX_BYTES: Final = 64 * 1024

_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,17})\n")

logger = logging.getLogger(__name__)

ConsistencyProof = Callable[[int, int], list[bytes]]


class WitnessState(StrEnum):
    """How a witness answered last."""

    UNASKED = "unasked"
    COSIGNED = "cosigned"
    UNREACHABLE = "unreachable"
    UNKNOWN_LOG = "unknown-log"
    CONTRADICTED = "contradicted"
    AHEAD = "ahead"
    REFUSED = "refused"
    INVALID = "invalid"


# What no honest log and witness ever come to: somebody must look at it.
ALARMING: Final = frozenset({WitnessState.CONTRADICTED, WitnessState.AHEAD})


class WitnessEntry(Struct, frozen=True):
    """Where a witness is (`<url>/add-checkpoint`) and the key that verifies what it says."""

    url: str
    key: WitnessKey


class _Peer:
    """One witness: how far it was last known to have come with this log, and its last answer."""

    def __init__(self, entry: WitnessEntry) -> None:
        self.entry = entry
        self.size = 0
        self.state = WitnessState.UNASKED


class Witnesses:
    """The witnesses of one log, `quorum` of whom must cosign a checkpoint."""

    def __init__(
        self, entries: Sequence[WitnessEntry], *, quorum: int, interval_s: float = 1.0
    ) -> None:
        """Hold the witnesses; a checkpoint is brought to them every `interval_s` seconds at most.

        Raises:
            ValueError: if two entries have one key, or the quorum is none that they can reach.
        """
        if len({entry.key.key.public_bytes_raw() for entry in entries}) != len(entries):
            raise ValueError("two witnesses have the same key: they would count as one")
        if not 1 <= quorum <= len(entries):
            raise ValueError(f"a quorum of {quorum} cannot be reached by {len(entries)} witnesses")
        self.quorum = quorum
        self.interval_s = interval_s
        self._peers = [_Peer(entry) for entry in entries]
        self._session: aiohttp.ClientSession | None = None

    @property
    def keys(self) -> list[WitnessKey]:
        """The witnesses' keys."""
        return [peer.entry.key for peer in self._peers]

    @property
    def states(self) -> dict[str, WitnessState]:
        """How each witness answered last, by its name."""
        return {peer.entry.key.name: peer.state for peer in self._peers}

    def satisfied(self, note: bytes) -> bool:
        """Say whether a checkpoint carries the quorum's cosignatures."""
        try:
            return len(cosignatures_of(note, self.keys)) >= self.quorum
        except VerificationError:
            return False

    async def cosign(self, checkpoint: Checkpoint, prove: ConsistencyProof) -> bytes | None:
        """Return `checkpoint` with its witnesses' cosignatures, or None if they are too few."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        asked = [
            asyncio.create_task(self._ask(self._session, peer, checkpoint, prove), name="cosign")
            for peer in self._peers
        ]
        lines: list[str] = []
        waiting = set(asked)
        try:
            while waiting:
                grace = GRACE_S if len(lines) >= self.quorum else None
                done, waiting = await asyncio.wait(
                    waiting, timeout=grace, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                lines += [found.line for task in done if (found := task.result()) is not None]
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if len(lines) < self.quorum:
            return None
        return checkpoint.note + "".join(lines).encode()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        peer: _Peer,
        checkpoint: Checkpoint,
        prove: ConsistencyProof,
    ) -> Cosignature | None:
        before = peer.state
        try:
            found = await self._bring(session, peer, checkpoint, prove)
        except (aiohttp.ClientError, TimeoutError, OSError):
            peer.state, found = WitnessState.UNREACHABLE, None
        if peer.state != before and peer.state is not WitnessState.COSIGNED:
            say = logger.error if peer.state in ALARMING else logger.warning
            say("the witness %s did not cosign: %s", peer.entry.key.name, peer.state)
        return found

    async def _bring(
        self,
        session: aiohttp.ClientSession,
        peer: _Peer,
        checkpoint: Checkpoint,
        prove: ConsistencyProof,
    ) -> Cosignature | None:
        # What was last known of the witness may be outdated: its own answer then says how far it is.
        for _ in range(2):
            status, body = await self._post(session, peer, checkpoint, prove)
            if status == 200:
                found = _cosignature(peer.entry.key, checkpoint, body)
                peer.state = WitnessState.INVALID if found is None else WitnessState.COSIGNED
                if found is not None:
                    peer.size = checkpoint.size
                return found
            match = _SIZE.fullmatch(body) if status == 409 else None
            if match is None:
                break
            size = int(match[1])
            if size > checkpoint.size:
                peer.state = WitnessState.AHEAD
                return None
            if size == peer.size == checkpoint.size:
                peer.state = WitnessState.CONTRADICTED
                return None
            peer.size = size
            peer.state = WitnessState.REFUSED
        else:
            return None
        peer.state = {
            404: WitnessState.UNKNOWN_LOG,
            422: WitnessState.CONTRADICTED,
        }.get(status, WitnessState.REFUSED)
        return None

    async def _post(
        self,
        session: aiohttp.ClientSession,
        peer: _Peer,
        checkpoint: Checkpoint,
        prove: ConsistencyProof,
    ) -> tuple[int, bytes]:
        proof: list[bytes] = []
        old = min(peer.size, checkpoint.size)
        if 0 < old < checkpoint.size:
            # On the event loop, as the tree's edge belongs to it; a proof takes a millisecond at most.
            proof = prove(old, checkpoint.size)
        lines = [f"old {old}", *(base64.b64encode(hash_).decode() for hash_ in proof), "", ""]
        body = "\n".join(lines).encode() + checkpoint.note
        url = f"{peer.entry.url}/add-checkpoint"
        async with session.post(url, data=body, allow_redirects=False) as reply:
            answer = bytearray()
            async for chunk in reply.content.iter_any():
                answer += chunk
                if len(answer) > ANSWER_MAX_BYTES:
                    raise aiohttp.ClientPayloadError("the answer is too long")
            return reply.status, bytes(answer)


def _cosignature(key: WitnessKey, checkpoint: Checkpoint, body: bytes) -> Cosignature | None:
    text, _ = split_note(checkpoint.note)
    try:
        found = cosignatures_of(text.encode() + b"\n" + body, [key])
    except VerificationError:
        return None
    return found[0] if found else None
