"""A console from its start to its end, as the application that serves it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from audit import Log, Pseudonymizer, WitnessKey
from audit.index import IndexKeeper, RecordIndex
from audit.reports import LogSource
from audit.reports.making import ReportMaker
from console.accounts import Accounts
from console.app import build_app
from console.lockout import Lockout
from console.parts import ConsoleParts
from console.permission import Permissions
from console.recording import OpenLog, Recorder
from console.sessions import Sessions
from console.settings import ConsoleSettings
from console.shield import Shield, origins_of
from console.store import Store
from console.tasks import Tasks
from coordinator import PolicyDesk, ReleaseFolder
from coordinator.policy.in_force import InForce
from coordinator.reports import ReportDesk
from policies import BundleKeeper


class ConsoleInputs(Struct, frozen=True, kw_only=True):
    """What whoever composes a console gives it; the console closes the log and the index.

    The `witnesses` cosign the checkpoints of every log; `quorum` of them must have.
    """

    site: str
    settings: ConsoleSettings
    folder: Path
    log: Log
    index: RecordIndex
    policies: BundleKeeper
    desk: PolicyDesk
    log_sources: Callable[[], Sequence[LogSource]]
    witnesses: tuple[WitnessKey, ...]
    quorum: int
    open_log: OpenLog
    pseudonymizer: Pseudonymizer
    releases: ReleaseFolder
    reports: ReportMaker
    lockout_key: bytes


@asynccontextmanager
async def running(inputs: ConsoleInputs, url: str, port: int) -> AsyncIterator[Shield]:
    """Start the console, give its application, and end it at the end; `url` is where it is reached."""
    settings = inputs.settings
    store = await Store.open(database_of(inputs.folder))
    recorder = Recorder(inputs.log)
    in_force = InForce(inputs.policies, inputs.desk.folder, recorder.append)
    keeper = IndexKeeper(inputs.index, inputs.log_sources)
    tasks = Tasks()
    reports = ReportDesk(inputs.reports, inputs.folder / "reports")
    parts = ConsoleParts(
        site=inputs.site,
        settings=settings,
        origins=tuple(origins_of(url, port)),
        index=inputs.index,
        keeper=keeper,
        log_sources=inputs.log_sources,
        witnesses=inputs.witnesses,
        quorum=inputs.quorum,
        open_log=inputs.open_log,
        pseudonymizer=inputs.pseudonymizer,
        store=store,
        accounts=Accounts(store),
        sessions=Sessions(store, idle_s=settings.idle_s, lifetime_s=settings.lifetime_s),
        lockout=Lockout(
            store,
            inputs.lockout_key,
            account_failures=settings.account_failures,
            address_failures=settings.address_failures,
            lockout_s=settings.lockout_s,
        ),
        permissions=Permissions(lambda: in_force.engine, inputs.site),
        engine=lambda: in_force.engine,
        document=lambda: in_force.document,
        desk=inputs.desk,
        releases=inputs.releases,
        recorder=recorder,
        tasks=tasks,
        reports=reports,
    )
    try:
        await in_force.start()
        keeper.start()
        tasks.start()
        reports.start()
        yield build_app(parts)
    finally:
        await reports.close()
        await tasks.close()
        await keeper.close()
        await in_force.close()
        await store.close()
        await inputs.index.close()
        await inputs.log.close()


def database_of(folder: Path) -> Path:
    """Return where the console's database is in its folder."""
    return folder / "console.sqlite"
