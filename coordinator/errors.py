"""What can go wrong in the coordinator."""

from audit.records import PolicyProblem


class CoordinatorError(Exception):
    """Root of this package's errors; messages are for the operator and quote no content."""


class ReleaseError(CoordinatorError):
    """Raised when a release cannot be published or does not verify."""


class EnrolmentError(CoordinatorError):
    """Raised when an enrolment code, key or proof is not accepted."""


class JobError(CoordinatorError):
    """Raised when a federated job cannot run or its result must not be used."""


class StoreError(CoordinatorError):
    """Raised when the coordinator's database cannot be used."""


class PolicyRefused(CoordinatorError):
    """Raised when a step of a policy bundle's life is refused; `problem` is what its record says."""

    def __init__(self, problem: PolicyProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
