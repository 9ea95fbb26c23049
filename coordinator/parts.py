"""What a coordinator is made of."""

from collections.abc import Callable

from msgspec import Struct

from audit import Log, Pseudonymizer
from audit.reports import LogSource
from coordinator.budget import Budget
from coordinator.catalogue import Catalogue
from coordinator.devices import DeviceKeys, DeviceRegistry
from coordinator.federated.superlink import SuperLink
from coordinator.jobs import JobRunner
from coordinator.policy.desk import PolicyDesk
from coordinator.policy.in_force import InForce
from coordinator.recording import Record
from coordinator.reports import ReportDesk
from coordinator.settings import CoordinatorSettings
from policies import DeviceVerifier, Engine, TokenVerifier


class CoordinatorParts(Struct, frozen=True, kw_only=True):
    """The parts that the API's routes use; `trust` is what enrolled devices are told to trust."""

    site: str
    settings: CoordinatorSettings
    log: Log
    in_force: InForce
    desk: PolicyDesk
    log_sources: Callable[[], list[LogSource]]
    tokens: TokenVerifier
    pseudonymizer: Pseudonymizer
    releases: Catalogue
    registry: DeviceRegistry
    keys: DeviceKeys
    devices: DeviceVerifier
    jobs: JobRunner
    budget: Budget
    superlink: SuperLink
    reports: ReportDesk
    record: Record
    trust: dict[str, list[str]]
    url: str

    @property
    def engine(self) -> Engine:
        """What decides, by the policies in force."""
        return self.in_force.engine
