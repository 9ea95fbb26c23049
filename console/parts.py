"""What a console is made of."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from audit import Pseudonymizer, WitnessKey
from audit.index import IndexKeeper, RecordIndex
from audit.reports import LogSource
from console.accounts import Accounts
from console.lockout import Lockout
from console.permission import Permissions
from console.recording import OpenLog, Recorder
from console.sessions import Sessions
from console.settings import ConsoleSettings
from console.store import Store
from console.tasks import Tasks
from coordinator import PolicyDesk, ReleaseFolder
from coordinator.reports import ReportDesk
from policies import Engine


class ConsoleParts(Struct, frozen=True, kw_only=True):
    """The parts that the routes use; `origins` are the names that the console is reached under."""

    site: str
    settings: ConsoleSettings
    origins: tuple[str, ...]
    index: RecordIndex
    keeper: IndexKeeper
    log_sources: Callable[[], Sequence[LogSource]]
    witnesses: tuple[WitnessKey, ...]
    quorum: int
    open_log: OpenLog
    pseudonymizer: Pseudonymizer
    store: Store
    accounts: Accounts
    sessions: Sessions
    lockout: Lockout
    permissions: Permissions
    engine: Callable[[], Engine]
    document: Callable[[], bytes]
    desk: PolicyDesk
    releases: ReleaseFolder
    recorder: Recorder
    tasks: Tasks
    reports: ReportDesk

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS, so that its cookie is sent over nothing else."""
        return all(origin.startswith("https:") for origin in self.origins)

    def published_sources(self) -> list[LogSource]:
        """Return the logs that have published a checkpoint."""
        return [source for source in self.log_sources() if (source.folder / "checkpoint").is_file()]
