"""What a coordinator is made of."""

from msgspec import Struct

from audit import Log, Pseudonymizer
from coordinator.catalogue import Catalogue
from coordinator.devices import DeviceKeys, DeviceRegistry
from coordinator.federated.superlink import SuperLink
from coordinator.jobs import JobRunner
from coordinator.settings import CoordinatorSettings
from policies import DeviceVerifier, Engine, TokenVerifier


class CoordinatorParts(Struct, frozen=True, kw_only=True):
    """The parts that the API's routes use; `trust` is what enrolled devices are told to trust."""

    site: str
    settings: CoordinatorSettings
    log: Log
    engine: Engine
    tokens: TokenVerifier
    pseudonymizer: Pseudonymizer
    releases: Catalogue
    registry: DeviceRegistry
    keys: DeviceKeys
    devices: DeviceVerifier
    jobs: JobRunner
    superlink: SuperLink
    trust: dict[str, list[str]]
    url: str
