"""What an app has to handle."""


class BedsideClientError(Exception):
    """Root of the SDK's errors; messages never quote data or identifiers of people."""


class Refused(BedsideClientError):
    """Raised when policy refuses the request; `policies` and `citations` say why."""

    def __init__(self, detail: str, policies: tuple[str, ...], citations: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.policies = policies
        self.citations = citations


class TokenRejected(BedsideClientError):
    """Raised when the gateway does not accept the token or the device's key."""


class RequestInvalid(BedsideClientError):
    """Raised when the gateway says that the request is malformed; `code` names the problem."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail)
        self.code = code


class Unavailable(BedsideClientError):
    """Raised when nothing can serve the request now; `retry_after_s` is a hint, if there is one."""

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class EnrolmentFailed(BedsideClientError):
    """Raised when the coordinator does not accept an enrolment code."""


class PackageRejected(BedsideClientError):
    """Raised when a model package is not exactly what a trusted release key signed."""


class RuntimeMissing(BedsideClientError):
    """Raised when a model must run here and neither ONNX Runtime extra is installed."""


class ModelFailed(BedsideClientError):
    """Raised when a model could not be run here."""


class StateError(BedsideClientError):
    """Raised when the device's state folder is missing something or is damaged."""
