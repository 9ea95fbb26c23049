"""What can go wrong in the gateway."""

from audit.records import Problem


class GatewayError(Exception):
    """Root of this package's errors."""


class RegistryError(GatewayError):
    """Raised when a device registry is unsigned, forged, malformed or older than the one in use."""


class Refusal(GatewayError):
    """Raised by a stage when the request ends here; becomes a problem document and a record.

    `detail` is shown to the caller: it says what was wrong and what to do, and never quotes what
    the caller sent. `policies` and `citations` are set when a policy refused.
    """

    def __init__(
        self,
        problem: Problem,
        detail: str,
        *,
        policies: tuple[str, ...] = (),
        citations: tuple[str, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.policies = policies
        self.citations = citations
        self.retry_after_s = retry_after_s
