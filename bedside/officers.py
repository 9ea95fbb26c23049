"""The console for officers: served beside the gateway, never in it, and its accounts."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from audit import AuditError, LogBusy
from audit.index import RecordIndex
from audit.records import ConsoleAction, ConsoleRecord, Outcome, encode
from bedside.compose import open_policies, resolve_secret
from bedside.errors import BedsideError
from bedside.http import serve_http
from bedside.listen import listen_tcp, url_of
from bedside.serving import run_until_stopped
from bedside.site import ACCOUNTS, CONSOLE, Site
from bedside.telemetry import Telemetry
from console import Accounts, ConsoleError, ConsoleInputs, ConsoleSettings, Lockout, Store, database_of
from console.recording import turn
from console.run import running
from secure_gateway.ids import new_id

T = TypeVar("T")

LOCKOUT_KEY = "console-lockout"


def run_console(site: Site, telemetry: Telemetry) -> None:
    """Serve the console until it is stopped."""
    settings = site.config.console

    async def work(stop: asyncio.Event) -> None:
        tls = _tls(settings)
        listener = listen_tcp(settings.host, settings.port)
        port = listener.getsockname()[1]
        url = settings.url or url_of(listener).replace("http:", "https:" if tls else "http:", 1)
        async with running(await _inputs(site), url, port) as app:
            await serve_http(
                app, listener, stop, lambda: telemetry.announce(f"console ready at {url}"), tls=tls
            )

    run_until_stopped(work)


async def _inputs(site: Site) -> ConsoleInputs:
    reference = site.config.audit.index_password
    members = site.config.audit.witnesses
    return ConsoleInputs(
        site=site.config.site,
        settings=site.config.console,
        folder=site.data / CONSOLE,
        policies=(await open_policies(site, CONSOLE))[0],
        desk=site.policy_desk(),
        log_sources=site.log_sources,
        witnesses=tuple(site.witness_keys()),
        quorum=members.quorum if members.members else 0,
        open_log=site.open_log,
        pseudonymizer=site.pseudonymizer(),
        releases=site.releases(),
        reports=site.report_maker(),
        lockout_key=site.keys.secret(LOCKOUT_KEY),
        index=await RecordIndex.open(
            site.index_address,
            password=None if reference is None else resolve_secret(reference),
        ),
        log=await site.open_log(CONSOLE),
    )


def _tls(settings: ConsoleSettings) -> tuple[Path, Path] | None:
    if settings.certificate is None or settings.key is None:
        return None
    for path in (settings.certificate, settings.key):
        if not path.is_file():
            raise BedsideError(f"[console]: there is no file {path}")
    return settings.certificate, settings.key


def change_accounts(
    site: Site, action: ConsoleAction, account: str, work: Callable[[Accounts, Lockout], Awaitable[T]]
) -> T:
    """Do `work` on the console's accounts, once the site's log `accounts` has it.

    Raises:
        BedsideError: with one clear line, whatever went wrong.
    """

    async def run() -> T:
        async with turn(site.open_log, ACCOUNTS) as log:
            record = ConsoleRecord(
                time=datetime.now(UTC),
                id=new_id(),
                action=action,
                outcome=Outcome.SERVED,
                account=account,
            )
            await log.append(encode(record))
            return await _with_accounts(site, work)

    return _one_line(run)


def read_accounts(site: Site, work: Callable[[Accounts, Lockout], Awaitable[T]]) -> T:
    """Look at the console's accounts.

    Raises:
        BedsideError: with one clear line, whatever went wrong.
    """
    return _one_line(lambda: _with_accounts(site, work))


async def _with_accounts(site: Site, work: Callable[[Accounts, Lockout], Awaitable[T]]) -> T:
    settings = site.config.console
    store = await Store.open(database_of(site.data / CONSOLE))
    try:
        lockout = Lockout(
            store,
            site.keys.secret(LOCKOUT_KEY),
            account_failures=settings.account_failures,
            address_failures=settings.address_failures,
            lockout_s=settings.lockout_s,
        )
        return await work(Accounts(store), lockout)
    finally:
        await store.close()


def _one_line(run: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await run()

    try:
        return asyncio.run(main())
    except LogBusy as error:
        raise BedsideError("another command is changing accounts; try again") from error
    except (AuditError, ConsoleError) as error:
        raise BedsideError(str(error)) from error
