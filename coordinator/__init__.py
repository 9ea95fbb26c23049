"""The control plane: devices, releases, and Flower jobs that bring back only aggregates."""

from coordinator.errors import (
    CoordinatorError,
    EnrolmentError,
    JobError,
    ReleaseError,
    StoreError,
)
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
