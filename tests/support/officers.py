"""A hospital whose console can be opened: a month of requests, each decided by its own policies.

The records are written by the logs' own writer; what they say of a decision, the engine said.
"""

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx

from audit.records import (
    Action,
    AnyRecord,
    ConsoleRecord,
    DeviceChange,
    DeviceRecord,
    Flag,
    JobRecord,
    JobState,
    Outcome,
    Place,
    PlaceTrait,
    Problem,
    RequestRecord,
    ReviewRecord,
    ReviewVerdict,
    decode,
    encode,
)
from audit.verify import read_checkpoint, read_entries
from bedside.children import Child, bedside_command
from bedside.config import Config, ModelEntry, PolicyEntry, TelemetryEntry
from bedside.site import Site
from bedside.up import environment_of
from console import Accounts, ConsoleSettings, Store, database_of
from policies import Agreement, Candidate, DataClass, Engine, Facts, PlacementKind, Purpose, Role
from secure_gateway import GatewaySettings, NodeEntry
from support.sites import free_port

PASSWORD = "correct horse battery staple"
OFFICER, OPERATOR, CLINICIAN = "c.officer", "it.operator", "dr.adams"
ACCOUNTS = {
    OFFICER: (Role.COMPLIANCE,),
    OPERATOR: (Role.OPERATOR, Role.ENGINEER),
    CLINICIAN: (Role.CLINICIAN,),
}
MODELS = {"sepsis": ("2", "a1" * 32), "retina": ("4", "b2" * 32), "breast-cancer": ("1", "c3" * 32)}
STAFF = ("dr.adams", "dr.brandt", "dr.okafor", "n.silva")
NODES = (
    NodeEntry(id="us-1", jurisdiction="US-CA", url="http://127.0.0.1:9"),
    NodeEntry(
        id="lab-east",
        jurisdiction="US-VA",
        url="http://127.0.0.1:9",
        on_premises=False,
        agreements={"baa"},
        attested=True,
    ),
    NodeEntry(
        id="eea-1",
        jurisdiction="DE",
        url="http://127.0.0.1:9",
        on_premises=False,
        agreements={"baa"},
        attested=True,
    ),
)


def hospital(folder: Path, **console) -> Site:
    entry = ModelEntry(
        roles=(Role.CLINICIAN, Role.RESEARCHER, Role.APP, Role.DEVICE, Role.BILLING),
        purposes=tuple(Purpose),
    )
    return Site(
        Config(
            site="st-anna",
            jurisdiction="US-CA",
            data=folder / "site",
            gateway=GatewaySettings(port=free_port(), nodes=NODES),
            console=ConsoleSettings(port=free_port(), **console),
            telemetry=TelemetryEntry(log_level="debug"),
            models=dict.fromkeys(MODELS, entry),
            policy=PolicyEntry(residency={"US-CA": ("US",)}),
        )
    )


def candidates() -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            placement=f"node:{node.id}",
            kind=PlacementKind.NODE,
            jurisdiction=node.jurisdiction,
            on_premises=node.on_premises,
            agreements=node.agreements,
            attested=node.attested,
        )
        for node in NODES
    )


def place_of(candidate: Candidate) -> Place:
    traits = {
        PlaceTrait.ON_PREMISES: candidate.on_premises,
        PlaceTrait.ATTESTED: candidate.attested,
        PlaceTrait.BAA: Agreement.BAA in candidate.agreements,
    }
    return Place(
        candidate.placement,
        candidate.jurisdiction,
        tuple(name for name, held in traits.items() if held),
    )


def request(
    engine: Engine, random_: random.Random, site: Site, time: datetime, facts: Facts, who: str
) -> RequestRecord:
    """What the gateway records of a request with these facts."""
    places = candidates()
    decision = engine.decide(facts, places)
    version, digest = MODELS[facts.model]
    allowed = decision.allowed
    placement = random_.choice((decision.permitted[0], *decision.permitted)) if allowed else None
    broken = allowed and random_.random() < 0.01
    outcome = Outcome.FAILED if broken else Outcome.SERVED if allowed else Outcome.REFUSED
    problem = Problem.NODE_UNREACHABLE if broken else None if allowed else Problem.POLICY_REFUSED
    return RequestRecord(
        time=time,
        id=UUID(int=random_.getrandbits(128)),
        action=Action.INFER,
        outcome=outcome,
        status={Outcome.SERVED: 200, Outcome.REFUSED: 403, Outcome.FAILED: 503}[outcome],
        principal=who,
        roles=tuple(sorted(facts.roles)),
        subject=site.pseudonymizer().pseudonym(f"mrn-{random_.randint(1, 60):04}"),
        model=facts.model,
        model_version=version,
        model_digest=digest,
        data_class=facts.data_class.value,
        jurisdiction=facts.jurisdiction,
        purpose=facts.purpose.value,
        consent=facts.consent,
        emergency=facts.emergency,
        on_device=False,
        carries_payload=True,
        candidates=tuple(map(place_of, places)),
        placement=None if broken else placement,
        policies=decision.policies,
        obligations=decision.obligations,
        bundle=decision.bundle_digest,
        problem=problem,
        flags=(Flag.BREAK_GLASS,) if decision.break_glass else (),
        rows=random_.randint(1, 16) if allowed else None,
        duration_us=random_.randint(900, 40_000),
    )


def month(site: Site, count: int, now: datetime) -> list[AnyRecord]:
    """Requests of the thirty days before `now`, in order."""
    random_ = random.Random(11)
    engine = Engine(site.bundle())
    found: list[AnyRecord] = []
    moments = []
    while len(moments) < count:
        moment = now - timedelta(seconds=random_.random() * 30 * 86400)
        busy = 1.0 if 7 <= moment.hour < 19 else 0.15
        if random_.random() < busy * (0.45 if moment.weekday() > 4 else 1):
            moments.append(moment)
    for moment in sorted(moments):
        kind = random_.random()
        facts = {"roles": frozenset({Role.CLINICIAN}), "jurisdiction": "US-CA"}
        facts["model"] = random_.choice(["sepsis", "sepsis", "sepsis", "retina", "breast-cancer"])
        who = random_.choice(STAFF)
        if kind < 0.08:
            facts["jurisdiction"] = "DE"
        elif kind < 0.13:
            who, facts["roles"] = "r.lind", frozenset({Role.RESEARCHER})
            facts |= {"purpose": Purpose.HRESCH, "data_class": DataClass.LIMITED}
        elif kind < 0.19:
            who, facts["roles"], facts["purpose"] = (
                "billing-app",
                frozenset({Role.BILLING}),
                Purpose.TREAT,
            )
        elif kind < 0.195:
            facts |= {"purpose": Purpose.ETREAT, "emergency": True}
        found.append(request(engine, random_, site, moment, Facts(**facts), who))
    return found


def coordination(now: datetime) -> list[AnyRecord]:
    """Devices and federated jobs."""

    def at(n, type_, **fields):
        return type_(time=now - timedelta(hours=300 - n), id=UUID(int=1000 + n), **fields)

    job = {"kind": "evaluate", "model": "sepsis", "model_version": "2", "principal": "e.ito"}
    job |= {"cohort_minimum": 10, "policies": ("base-api-engineers",), "bundle": "cd" * 32}
    return [
        at(
            1,
            DeviceRecord,
            device="phone-1",
            change=DeviceChange.ENROLLED,
            principal="e.ito",
            subjects=1,
        ),
        at(2, JobRecord, state=JobState.QUEUED, **job),
        JobRecord(time=now - timedelta(hours=297), id=UUID(int=1002), state=JobState.RUNNING, **job),
        JobRecord(
            time=now - timedelta(hours=296), id=UUID(int=1002), state=JobState.DONE, cohort=24, **job
        ),
        at(9, JobRecord, state=JobState.QUEUED, **job),
        JobRecord(
            time=now - timedelta(hours=290), id=UUID(int=1009), state=JobState.FAILED, cohort=7, **job
        ),
    ]


async def write(site: Site, name: str, records: list[AnyRecord]) -> None:
    log = await site.open_log(name)
    await asyncio.gather(*(log.append(encode(record)) for record in records))
    await log.close()


async def add_accounts(site: Site) -> None:
    store = await Store.open(database_of(site.data / "console"))
    accounts = Accounts(store)
    for name, roles in ACCOUNTS.items():
        await accounts.add(name, roles, PASSWORD)
    await store.close()


def fill(site: Site, count: int = 600, now: datetime | None = None) -> list[AnyRecord]:
    """Write the hospital's logs and accounts; return what its gateway recorded."""
    now = now or datetime.now(UTC)
    site.bundles().settle()
    asked = month(site, count, now)
    emergencies = [n for n, record in enumerate(asked) if getattr(record, "flags", ())]
    reviews: list[AnyRecord] = [
        ReviewRecord(
            time=asked[number].time + timedelta(hours=2),
            id=UUID(int=5),
            reviewed_log="st-anna/gateway-1",
            reviewed_number=number,
            verdict=ReviewVerdict.JUSTIFIED,
            principal="c.officer",
        )
        for number in emergencies[:1]
    ]

    async def run() -> None:
        await write(site, "gateway-1", asked)
        await write(site, "coordinator", coordination(now))
        await write(site, "reviews", reviews)
        await add_accounts(site)

    asyncio.run(run())
    return asked


class ConsoleProcess:
    """A real `bedside console serve`."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.port = site.config.console.port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "console.log"
        self._child: Child | None = None
        self._visitors: list[Visitor] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._child = Child(
            "console",
            bedside_command("console", "serve"),
            log=self.log,
            environment=environment_of(self.site.config),
        )
        self._child.wait_for(lambda line: " ready at " in line, 60)

    def stop(self) -> None:
        for visitor in self._visitors:
            visitor.http.close()
        self._visitors.clear()
        if self._child is not None:
            self._child.stop()
            self._child = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def records(self, name: str = "console") -> list[AnyRecord]:
        """What the site's log of this name has published."""
        folder, verifier = self.site.log_folder(name), self.site.log_verifier(name)
        if not (folder / "checkpoint").is_file():
            return []
        return [decode(leaf) for leaf in read_entries(folder, read_checkpoint(folder, verifier).size)]

    def recorded(self, wanted: Callable[[ConsoleRecord], bool]) -> ConsoleRecord:
        """The newest record of the console that is wanted; its log publishes it within moments."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for record in reversed(self.records()):
                if isinstance(record, ConsoleRecord) and wanted(record):
                    return record
            time.sleep(0.02)
        raise AssertionError("nothing like that was recorded")

    def visitor(self) -> "Visitor":
        visitor = Visitor(self)
        self._visitors.append(visitor)
        return visitor

    def officer(self, name: str = OFFICER) -> "Visitor":
        visitor = self.visitor()
        answer = visitor.sign_in(name, PASSWORD)
        assert answer.status_code == 303, answer.text
        return visitor


class Visitor:
    """A browser without a window: it keeps cookies, and sends forms as pages have them."""

    def __init__(self, console: ConsoleProcess) -> None:
        self.http = httpx.Client(base_url=console.url, timeout=60)
        self.origin = console.url

    def sign_in(self, name: str, password: str, **fields: str) -> httpx.Response:
        return self.submit("/sign-in", {"name": name, "password": password, **fields})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def form_key(self) -> str:
        return re.findall(r'name="form_key" value="([^"]+)"', self.get("/account").text)[0]

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of the signed-in session."""
        return self.submit(path, {"form_key": self.form_key(), **fields})

    def submit(self, path: str, fields: Mapping[str, str]) -> httpx.Response:
        return self.http.post(path, data=dict(fields), headers={"Origin": self.origin})

    def read(self, path: str) -> str:
        """The text of a page."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text
