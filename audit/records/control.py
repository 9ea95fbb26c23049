"""What the coordinator does: devices, releases and federated jobs."""

from enum import StrEnum

from audit.records.base import Record
from audit.records.fields import Count, Digest, Identifier


class DeviceChange(StrEnum):
    """What happened to a device's enrolment."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"


class JobState(StrEnum):
    """Where a federated job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


class DeviceRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="device"):
    """A device was enrolled or revoked."""

    device: Identifier
    change: DeviceChange
    principal: Identifier | None = None
    subjects: Count = 0


class ReleaseRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="release"):
    """A signed model package was published."""

    model: Identifier
    model_version: Identifier
    model_digest: Digest
    principal: Identifier | None = None


class JobRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="job"):
    """A federated job changed state; `cohort` counts the devices whose sums returned."""

    kind: Identifier
    state: JobState
    model: Identifier
    model_version: Identifier
    principal: Identifier | None = None
    cohort: Count = 0
    cohort_minimum: Count = 0
    policies: tuple[Identifier, ...] = ()
    bundle: Digest | None = None
