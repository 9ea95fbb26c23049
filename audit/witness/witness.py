"""The rules of `add-checkpoint` (C2SP tlog-witness): what a witness cosigns, and what it refuses."""

import base64
import re
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import Cosigner
from audit.errors import VerificationError
from audit.merkle import HASH_BYTES, verify_consistency
from audit.note import NoteVerifier, split_note
from audit.witness.memory import WitnessMemory

PROOF_MAX: Final = 63
SIZE_TYPE: Final = "text/x.tlog.size"
TEXT_TYPE: Final = "text/plain; charset=utf-8"

_OLD: Final = re.compile(rb"old (0|[1-9][0-9]{0,17})")
_OVERTAKEN: Final = 3


class Added(Struct, frozen=True):
    """The answer to a request: an HTTP status, a body and its type."""

    status: int
    body: str
    content_type: str = TEXT_TYPE


class _Request(Struct, frozen=True):
    old: int
    proof: list[bytes]
    note: bytes


class Witness:
    """Cosigns the checkpoints of the logs that it was told of; threads may share it."""

    def __init__(
        self,
        cosigner: Cosigner,
        logs: Sequence[NoteVerifier],
        memory: WitnessMemory,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cosigner = cosigner
        self._logs: dict[str, list[NoteVerifier]] = {}
        for log in logs:
            self._logs.setdefault(log.name, []).append(log)
        self._memory = memory
        self._clock = clock

    def add_checkpoint(self, body: bytes) -> Added:
        """Answer one `add-checkpoint` request.

        Raises:
            WitnessUnavailable: if the checkpoint cannot be remembered; it is not cosigned then.
        """
        try:
            request = _parse(body)
            text, _ = split_note(request.note)
        except VerificationError as error:
            return _refused(HTTPStatus.BAD_REQUEST, str(error))
        trusted = self._logs.get(text.partition("\n")[0])
        if trusted is None:
            return _refused(HTTPStatus.NOT_FOUND, "the log is none of this witness's")
        try:
            checkpoint = open_checkpoint(request.note, trusted)
        except VerificationError as error:
            return _refused(HTTPStatus.FORBIDDEN, str(error))
        if request.old > checkpoint.size:
            return _refused(HTTPStatus.BAD_REQUEST, "the old size is larger than the checkpoint's")
        for _ in range(_OVERTAKEN):
            answer = self._extend(request, checkpoint, text)
            if answer is not None:
                return answer
        return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "the log is being witnessed elsewhere; retry")

    def _extend(self, request: _Request, checkpoint: Checkpoint, text: str) -> Added | None:
        """Cosign `checkpoint` if it extends what was seen; None if another request came between."""
        last = self._memory.seen(checkpoint.origin)
        if checkpoint.size == last.size and checkpoint.root != last.root:
            # Signed by the log, and not what it signed before: this is what witnesses are for.
            self._memory.keep_contradiction(checkpoint)
            return _conflict(last.size)
        if request.old != last.size:
            return _conflict(last.size)
        try:
            verify_consistency(last.size, checkpoint.size, request.proof, last.root, checkpoint.root)
        except VerificationError as error:
            return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        # A clock that was set back must not make a later statement look like an earlier one.
        now = max(int(self._clock()), last.time, 1)
        if not self._memory.advance(last, checkpoint, now):
            return None
        return Added(HTTPStatus.OK, self._cosigner.cosign(text, now))


def _parse(body: bytes) -> _Request:
    head, separator, note = body.partition(b"\n\n")
    old, *lines = head.split(b"\n")
    match = _OLD.fullmatch(old)
    if not separator or match is None:
        raise VerificationError("a request is `old <size>`, proof lines, an empty line, a checkpoint")
    if len(lines) > PROOF_MAX:
        raise VerificationError(f"a consistency proof has at most {PROOF_MAX} lines")
    return _Request(int(match[1]), [_hash(line) for line in lines], note)


def _hash(line: bytes) -> bytes:
    try:
        raw = base64.b64decode(line, validate=True)
    except ValueError as error:
        raise VerificationError("a line of the consistency proof is not base64") from error
    if len(raw) != HASH_BYTES or base64.b64encode(raw) != line:
        raise VerificationError("a line of the consistency proof is not a SHA-256 hash in base64")
    return raw


def _conflict(size: int) -> Added:
    return Added(HTTPStatus.CONFLICT, f"{size}\n", SIZE_TYPE)


def _refused(status: HTTPStatus, why: str) -> Added:
    return Added(status, f"{why}\n")
