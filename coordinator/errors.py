"""What can go wrong in the coordinator."""


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
