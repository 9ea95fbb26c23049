"""A coordinator from its start to its end, as the application that serves it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from msgspec import Struct

from audit import Log, Pseudonymizer
from audit.reports import LogSource
from audit.reports.making import ReportMaker
from coordinator.app import build_app
from coordinator.budget import Budget
from coordinator.catalogue import Catalogue
from coordinator.devices import DeviceKeys, DeviceRegistry
from coordinator.federated.superlink import SuperLink
from coordinator.jobs import JobRunner
from coordinator.parts import CoordinatorParts
from coordinator.policy.desk import PolicyDesk
from coordinator.policy.in_force import InForce
from coordinator.recording import recorder
from coordinator.releases import ReleaseFolder
from coordinator.reports import ReportDesk
from coordinator.settings import CoordinatorSettings
from coordinator.store import Store
from policies import BundleKeeper, DeviceVerifier, TokenVerifier


class CoordinatorInputs(Struct, frozen=True, kw_only=True):
    """What whoever composes a coordinator gives it; the coordinator closes the log."""

    site: str
    settings: CoordinatorSettings
    folder: Path
    log: Log
    policies: BundleKeeper
    desk: PolicyDesk
    log_sources: Callable[[], list[LogSource]]
    reports: ReportMaker
    tokens: TokenVerifier
    pseudonymizer: Pseudonymizer
    releases: ReleaseFolder
    registry_key: Ed25519PrivateKey
    job_key: Ed25519PrivateKey
    release_keys: tuple[str, ...]


@asynccontextmanager
async def running(inputs: CoordinatorInputs, url: str) -> AsyncIterator[FastAPI]:
    """Start the coordinator and its SuperLink, give its application, and end both at the end.

    `url` is where devices reach it.
    """
    store = await Store.open(inputs.folder / "coordinator.sqlite")
    superlink = SuperLink(inputs.folder / "flower", inputs.settings.superlink_port)
    record = recorder(inputs.log)
    in_force = InForce(inputs.policies, inputs.desk.folder, record)
    keys = DeviceKeys()
    budget = Budget(lambda: in_force.engine.bundle.numbers, inputs.settings.cohort_minimum)
    jobs = JobRunner(
        store=store,
        superlink=superlink,
        record=record,
        key=inputs.job_key,
        site=inputs.site,
        budget=budget,
        timeout_s=inputs.settings.job_timeout_s,
    )
    parts = CoordinatorParts(
        site=inputs.site,
        settings=inputs.settings,
        log=inputs.log,
        in_force=in_force,
        desk=inputs.desk,
        log_sources=inputs.log_sources,
        record=record,
        tokens=inputs.tokens,
        pseudonymizer=inputs.pseudonymizer,
        releases=Catalogue(inputs.releases, store, record),
        registry=DeviceRegistry(store, inputs.registry_key, inputs.site, record),
        keys=keys,
        devices=DeviceVerifier(keys.key_of, inputs.site),
        jobs=jobs,
        budget=budget,
        superlink=superlink,
        reports=ReportDesk(inputs.reports, inputs.folder / "reports"),
        trust={
            "release_keys": list(inputs.release_keys),
            "job_keys": [inputs.job_key.public_key().public_bytes_raw().hex()],
        },
        url=url,
    )
    try:
        await in_force.start()
        log = inputs.log
        await asyncio.to_thread(lambda: budget.recount(log.entries(0, log.size)))
        await jobs.recover()
        await superlink.start()
        parts.reports.start()
        yield build_app(parts)
    finally:
        await parts.reports.close()
        await jobs.close()
        await in_force.close()
        await superlink.stop()
        await store.close()
        await inputs.log.close()
