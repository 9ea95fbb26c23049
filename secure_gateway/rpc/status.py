"""Problems as gRPC statuses: the code, the sentence and the trailing metadata that clients look at."""

from typing import Any, Final, NoReturn

from grpc import StatusCode

from audit.records import Problem
from secure_gateway import respond
from secure_gateway.errors import Refusal
from secure_gateway.problems import status_of

# Clients accept 8 KiB of trailing metadata, of which the sentence is one part.
SENTENCE_MAX_CHARACTERS: Final = 2000

CODES: Final[dict[int, StatusCode]] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.FAILED_PRECONDITION,
    410: StatusCode.NOT_FOUND,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.UNIMPLEMENTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    502: StatusCode.INTERNAL,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
"""The code for each HTTP status that a problem has over REST, so that both tell the same."""

Metadata = tuple[tuple[str, str], ...]


def code_of(problem: Problem) -> StatusCode:
    """Return the code that answers `problem`."""
    return CODES[status_of(problem)]


def sentence(refusal: Refusal, record: str | None) -> str:
    """Return what clients show: the problem, the policies that refused, the cure and the record."""
    return respond.sentence(refusal, record=record)[:SENTENCE_MAX_CHARACTERS]


def metadata(refusal: Refusal, record: str | None) -> Metadata:
    """Return the trailing metadata that goes with a refusal."""
    pairs = [("bedside-problem", refusal.problem.value)]
    if record is not None:
        pairs.append(("bedside-record", record))
    if refusal.policies:
        pairs.append(("bedside-policies", ", ".join(refusal.policies)))
    if refusal.retry_after_s is not None:
        pairs.append(("retry-after", str(refusal.retry_after_s)))
        # What gRPC's own retries wait for (gRFC A6, "Pushback").
        pairs.append(("grpc-retry-pushback-ms", str(refusal.retry_after_s * 1000)))
    return tuple(pairs)


async def abort(
    context: Any,  # noqa: ANN401 grpc's context has no one type
    refusal: Refusal,
    record: str | None,
    code: StatusCode | None = None,
) -> NoReturn:
    """End the call with the status of `refusal`; `code` outranks the problem's own."""
    await context.abort(
        code_of(refusal.problem) if code is None else code,
        sentence(refusal, record),
        metadata(refusal, record),
    )
    message = "grpc raises its own error from abort"
    raise AssertionError(message)
