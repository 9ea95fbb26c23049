"""What can go wrong in `inference_node`; messages never quote a tensor's values."""


class NodeError(Exception):
    """Root of this package's errors."""


class InputInvalid(NodeError):
    """Raised when a request is malformed or does not fit the model; the message names the rule."""


class ModelUnknown(NodeError):
    """Raised when the repository has no such model or version."""


class ModelNotReady(NodeError):
    """Raised when the model exists and cannot serve; `reason` is a code for the operator."""


class ModelReplaced(ModelNotReady):
    """Raised when another file serves under the name and version than the one that was expected.

    `digest` is that of the file that serves, as far as it is known.
    """

    def __init__(self, digest: str) -> None:
        super().__init__("another file serves in the place of the one that was expected")
        self.digest = digest


class QueueFull(NodeError):
    """Raised at once when as many requests wait as the queue may hold."""


class DeadlineExceeded(NodeError):
    """Raised when a request's time was over before it was answered."""


class NodeSilent(DeadlineExceeded):
    """Raised when a remote node gave no answer at all in the time that it was given."""


class ExecutionFailed(NodeError):
    """Raised when the runtime failed; its own message may quote values and is not passed on."""


class RowsMixed(ExecutionFailed):
    """Raised when a model answers a batch with another number of rows than it was given."""


class NodeUnreachable(NodeError):
    """Raised when a remote node did not take the request; it is certain that nothing ran."""


class NodeFailed(NodeError):
    """Raised when a remote node took the request and no valid answer came; it may have run."""


class RepositoryError(NodeError):
    """Raised when the model repository itself cannot be used."""
