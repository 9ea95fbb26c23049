"""What is kept of work: only sealed, and bound to the work and the principal that it belongs to."""

import asyncio
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from audit.records import Problem, RequestRecord
from policies import Candidate, Facts, Principal
from secure_gateway.exchange import Claims
from secure_gateway.sealing import SealBroken, Sealer

# Below it, handing over to a thread costs more than sealing.
THREAD_BYTES: Final = 256 * 1024


class Kind(StrEnum):
    """What a sealed value is; one does not open as the other."""

    SUBMISSION = "submission"
    RESULT = "result"
    FAILURE = "failure"


class Submission(Struct, frozen=True, kw_only=True):
    """A call to be served later: who sent it, what was claimed of it, and its body as it came."""

    principal: Principal
    claims: Claims
    model: str
    version: str | None
    body: bytes
    header_length: int | None


class Result(Struct, frozen=True, kw_only=True):
    """The answer of a run, ready to be sent, and the record that was made of the run.

    `facts` and `candidates` are what the run was decided on, so that it can be decided again.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    record: RequestRecord
    facts: Facts | None = None
    candidates: tuple[Candidate, ...] = ()


class Failure(Struct, frozen=True, kw_only=True):
    """Why a run gave no result; the refusal's own words, which quote nobody."""

    problem: Problem
    detail: str
    policies: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()


Content = Submission | Result | Failure
C = TypeVar("C", Submission, Result, Failure)

_KINDS: Final[dict[type[Content], Kind]] = {
    Submission: Kind.SUBMISSION,
    Result: Kind.RESULT,
    Failure: Kind.FAILURE,
}


async def seal(sealer: Sealer, work: UUID, principal: str, content: Content) -> bytes:
    """Return `content`, sealed for `work` of `principal`."""
    associated = _associated(_KINDS[type(content)], work, principal)

    def sealed() -> bytes:
        return sealer.seal(msgspec.msgpack.encode(content), associated)

    body = b"" if isinstance(content, Failure) else content.body
    return await asyncio.to_thread(sealed) if len(body) > THREAD_BYTES else sealed()


async def unseal(sealer: Sealer, work: UUID, principal: str, sealed: bytes, kind: type[C]) -> C:
    """Return what was sealed for `work` of `principal`.

    Raises:
        SealBroken: if it is anything else, was changed, or the key is another.
    """
    associated = _associated(_KINDS[kind], work, principal)

    def opened() -> C:
        try:
            return msgspec.msgpack.decode(sealer.open(sealed, associated), type=kind)
        except msgspec.MsgspecError:
            raise SealBroken("the sealed bytes are of another version of Bedside") from None

    return await asyncio.to_thread(opened) if len(sealed) > THREAD_BYTES else opened()


def _associated(kind: Kind, work: UUID, principal: str) -> bytes:
    return f"work {kind} {work} {principal}".encode()
