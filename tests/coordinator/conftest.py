"""A coordinator's parts without its processes: a real store, log, catalogue and API."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.policy import Approval
from support.reporting import report_maker

from audit import Log, Pseudonymizer
from audit.records import AnyRecord, decode
from audit.reports import LogSource
from audit.reports.making import ReportMaker
from coordinator import (
    CoordinatorSettings,
    PolicyFolder,
    Release,
    ReleasedEquivalence,
    ReleasedTensor,
    ReleaseFolder,
    build_release,
    sign_release,
)
from coordinator.app import build_app
from coordinator.budget import Budget
from coordinator.catalogue import Catalogue
from coordinator.devices import DeviceKeys, DeviceRegistry
from coordinator.federated.superlink import SuperLink
from coordinator.jobs import JobRunner
from coordinator.parts import CoordinatorParts
from coordinator.policy.in_force import InForce
from coordinator.recording import Record, recorder
from coordinator.reports import ReportDesk
from coordinator.store import Store
from policies import (
    DeviceVerifier,
    ModelAccess,
    Numbers,
    Purpose,
    Role,
    TokenIssuer,
    TokenVerifier,
    build_bundle,
)

SITE = "mercy"


@dataclass(frozen=True)
class Keys:
    """The site's keys."""

    release: Ed25519PrivateKey
    registry: Ed25519PrivateKey
    job: Ed25519PrivateKey
    issuer: Ed25519PrivateKey


@dataclass(frozen=True)
class Api:
    """The coordinator's API, called in this process."""

    parts: CoordinatorParts
    client: httpx.AsyncClient
    issuer: TokenIssuer

    async def call(
        self, method: str, path: str, role: Role | None, body: object = None
    ) -> httpx.Response:
        headers = {}
        if role is not None:
            token = self.issuer.issue(role.value, [role], lifetime_s=60)
            headers["Authorization"] = f"Bearer {token}"
        return await self.client.request(method, path, json=body, headers=headers)


@pytest.fixture
def keys() -> Keys:
    return Keys(*(Ed25519PrivateKey.generate() for _ in range(4)))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "coordinator" / "coordinator.sqlite")
    yield opened
    await opened.close()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    opened = await Log.open(
        tmp_path / "log", origin=f"{SITE}/coordinator", key=Ed25519PrivateKey.generate()
    )
    yield opened
    await opened.close()


@pytest.fixture
def record(log: Log) -> Record:
    return recorder(log)


@pytest.fixture
def recorded(log: Log) -> Callable[[], list[AnyRecord]]:
    """Read the log."""
    return lambda: [decode(leaf) for leaf in log.entries(0, log.size)]


@pytest.fixture
def registry(store: Store, record: Record, keys: Keys) -> DeviceRegistry:
    return DeviceRegistry(store, keys.registry, SITE, record)


@pytest.fixture
def releases(tmp_path: Path, keys: Keys) -> ReleaseFolder:
    return ReleaseFolder(tmp_path / "models", [keys.release.public_key()])


@pytest.fixture
def make_release(tmp_path: Path, keys: Keys) -> Callable[..., tuple[Release, bytes, Path]]:
    """Make a signed release of some bytes: the release, its document, the model file."""

    def make(
        version: int = 1, content: bytes = b"a model", **changes: object
    ) -> tuple[Release, bytes, Path]:
        artifact = tmp_path / "artifact.onnx"
        artifact.write_bytes(content)
        fields = {
            "model": "sepsis",
            "version": version,
            "inputs": [ReleasedTensor(name="x", datatype="FP32", shape=(-1, 3))],
            "outputs": [ReleasedTensor(name="y", datatype="FP32", shape=(-1, 2))],
            "equivalence": ReleasedEquivalence(rows=8, max_abs_difference=1e-7, tolerance=1e-5),
            "checkpoint_sha256": "0" * 64,
            "threshold": 0.5,
        }
        release = build_release(artifact, **(fields | changes))
        return release, sign_release(release, keys.release), artifact

    return make


@pytest.fixture
def superlink(tmp_path: Path) -> SuperLink:
    """A SuperLink that was not started."""
    return SuperLink(tmp_path / "coordinator" / "flower")


@pytest.fixture
def numbers() -> dict[str, Numbers]:
    """What the policies' numbers are: under "now", if there are any."""
    return {}


@pytest.fixture
def budget(numbers: dict[str, Numbers]) -> Budget:
    return Budget(lambda: numbers.get("now"), 2)


@pytest.fixture
async def jobs(
    store: Store, superlink: SuperLink, record: Record, keys: Keys, budget: Budget
) -> AsyncIterator[JobRunner]:
    runner = JobRunner(
        store=store,
        superlink=superlink,
        record=record,
        key=keys.job,
        site=SITE,
        budget=budget,
        timeout_s=10,
    )
    yield runner
    await runner.close()


@pytest.fixture
def approval(tmp_path: Path) -> Approval:
    return Approval(tmp_path / "policy", SITE)


@pytest.fixture
def maker(tmp_path: Path, log: Log) -> ReportMaker:
    """What makes reports over the coordinator's own log, and records them in one of reports."""
    return report_maker(SITE, tmp_path / "log", log)


@pytest.fixture
async def api(
    approval: Approval,
    tmp_path: Path,
    store: Store,
    log: Log,
    record: Record,
    keys: Keys,
    registry: DeviceRegistry,
    releases: ReleaseFolder,
    superlink: SuperLink,
    jobs: JobRunner,
    budget: Budget,
    maker: ReportMaker,
) -> AsyncIterator[Api]:
    access = ModelAccess(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))
    bundle = build_bundle(("base",), name=SITE, version=1, models={"sepsis": access})
    device_keys = DeviceKeys()
    parts = CoordinatorParts(
        site=SITE,
        settings=CoordinatorSettings(cohort_minimum=2),
        log=log,
        in_force=InForce(approval.keeper(bundle), PolicyFolder(approval.folder), record),
        desk=approval.desk(),
        log_sources=lambda: [LogSource(folder=tmp_path / "log", verifier=log.verifier)],
        record=record,
        tokens=TokenVerifier([keys.issuer.public_key()], SITE),
        pseudonymizer=Pseudonymizer(bytes(32)),
        releases=Catalogue(releases, store, record),
        registry=registry,
        keys=device_keys,
        devices=DeviceVerifier(device_keys.key_of, SITE),
        jobs=jobs,
        budget=budget,
        superlink=superlink,
        reports=ReportDesk(maker, tmp_path / "orders"),
        trust={"release_keys": ["0" * 64], "job_keys": ["1" * 64]},
        url="http://coordinator",
    )
    transport = httpx.ASGITransport(build_app(parts))
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
        parts.reports.start()
        yield Api(parts, client, TokenIssuer(keys.issuer, SITE))
        await parts.reports.close()
