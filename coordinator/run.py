"""A coordinator from its start to its end, as the application that serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from msgspec import Struct

from audit import Log, Pseudonymizer
from coordinator.app import build_app
from coordinator.catalogue import Catalogue
from coordinator.devices import DeviceKeys, DeviceRegistry
from coordinator.federated.superlink import SuperLink
from coordinator.jobs import JobRunner
from coordinator.parts import CoordinatorParts
from coordinator.recording import recorder
from coordinator.releases import ReleaseFolder
from coordinator.settings import CoordinatorSettings
from coordinator.store import Store
from policies import DeviceVerifier, Engine, TokenVerifier


class CoordinatorInputs(Struct, frozen=True, kw_only=True):
    """What whoever composes a coordinator gives it; the coordinator closes the log."""

    site: str
    settings: CoordinatorSettings
    folder: Path
    log: Log
    engine: Engine
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
    keys = DeviceKeys()
    jobs = JobRunner(
        store=store,
        superlink=superlink,
        record=record,
        key=inputs.job_key,
        site=inputs.site,
        cohort_minimum=inputs.settings.cohort_minimum,
        timeout_s=inputs.settings.job_timeout_s,
    )
    parts = CoordinatorParts(
        site=inputs.site,
        settings=inputs.settings,
        log=inputs.log,
        engine=inputs.engine,
        tokens=inputs.tokens,
        pseudonymizer=inputs.pseudonymizer,
        releases=Catalogue(inputs.releases, store, record),
        registry=DeviceRegistry(store, inputs.registry_key, inputs.site, record),
        keys=keys,
        devices=DeviceVerifier(keys.key_of, inputs.site),
        jobs=jobs,
        superlink=superlink,
        trust={
            "release_keys": list(inputs.release_keys),
            "job_keys": [inputs.job_key.public_key().public_bytes_raw().hex()],
        },
        url=url,
    )
    try:
        await jobs.recover()
        await superlink.start()
        yield build_app(parts)
    finally:
        await jobs.close()
        await superlink.stop()
        await store.close()
        await inputs.log.close()
