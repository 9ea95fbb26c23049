"""Serve a coordinator on a socket until it is told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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

GRACE_S = 5


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


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this process."""
        yield


async def serve(
    inputs: CoordinatorInputs,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[str], None],
) -> None:
    """Serve on `listener` until `stop` is set, then end the SuperLink and close everything.

    `ready` is called with the base URL once requests are accepted.
    """
    host, port = listener.getsockname()[:2]
    url = inputs.settings.url or f"http://{host}:{port}"
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
        await _serve_http(parts, listener, stop, lambda: ready(url))
    finally:
        await jobs.close()
        await superlink.stop()
        await store.close()
        await inputs.log.close()


async def _serve_http(
    parts: CoordinatorParts,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    server = _Server(
        uvicorn.Config(
            build_app(parts),
            http="httptools",
            ws="none",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="coordinator-http")
    stopping = asyncio.create_task(stop.wait(), name="coordinator-stop")
    ready()
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving
