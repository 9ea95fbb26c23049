"""The control plane: devices, releases, and Flower jobs that bring back only aggregates."""

from coordinator.errors import (
    CoordinatorError,
    EnrolmentError,
    JobError,
    PolicyRefused,
    ReleaseError,
    StoreError,
)
from coordinator.policy import Ledger, PolicyDesk, PolicyFolder
from coordinator.releases import (
    Release,
    ReleasedEquivalence,
    ReleasedTensor,
    ReleaseFolder,
    build_release,
    sign_release,
    verify_release,
)
from coordinator.settings import CoordinatorSettings

__all__ = [
    "CoordinatorError",
    "CoordinatorSettings",
    "EnrolmentError",
    "JobError",
    "Ledger",
    "PolicyDesk",
    "PolicyFolder",
    "PolicyRefused",
    "Release",
    "ReleaseError",
    "ReleaseFolder",
    "ReleasedEquivalence",
    "ReleasedTensor",
    "StoreError",
    "build_release",
    "sign_release",
    "verify_release",
]
