"""The demo's site and processes: a node, a coordinator with Flower, a gateway, four devices."""

import secrets
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bedside.api import call_api
from bedside.children import Child, bedside_command
from bedside.config import Config
from bedside.example import EXAMPLE_MODEL, Cohorts
from bedside.site import Site
from bedside.up import environment_of
from bedside_client import SqliteData
from coordinator import CoordinatorSettings
from policies import Role
from secure_gateway import GatewaySettings, NodeEntry

SITE: Final = "st-brigid"
NODE: Final = "us-1"
COHORT_MINIMUM: Final = 4
HOUR_S: Final = 3600
START_TIMEOUT_S: Final = 90

PEOPLE: Final = {
    "dr.adams": (Role.CLINICIAN,),
    "b.keller": (Role.BILLING,),
    "e.ito": (Role.ENGINEER,),
    "it.operator": (Role.OPERATOR,),
}


class Stage:
    """Everything that runs during the demo; leaving it ends every process."""

    def __init__(self, folder: Path, cohorts: Cohorts) -> None:
        self.folder = folder
        self._cohorts = cohorts
        self._children: list[Child] = []
        gateway_port, coordinator_port, node_port = (_free_port() for _ in range(3))
        self.gateway_address = f"127.0.0.1:{gateway_port}"
        self.coordinator_url = f"http://127.0.0.1:{coordinator_port}"
        self._node_address = f"127.0.0.1:{node_port}"
        self._node_secret = folder / "site" / "keys" / "node.secret"
        self.site = Site(
            Config(
                site=SITE,
                jurisdiction="US-CA",
                data=folder / "site",
                gateway=GatewaySettings(
                    port=gateway_port,
                    nodes=(
                        NodeEntry(
                            id=NODE,
                            jurisdiction="US-CA",
                            url=f"http://{self._node_address}",
                            secret=f"file:{self._node_secret}",
                        ),
                    ),
                ),
                coordinator=CoordinatorSettings(
                    port=coordinator_port,
                    url=self.coordinator_url,
                    gateway_url=f"http://{self.gateway_address}",
                    cohort_minimum=COHORT_MINIMUM,
                ),
            )
        )
        issuer = self.site.token_issuer()
        self.tokens = {
            name: issuer.issue(name, roles, lifetime_s=HOUR_S) for name, roles in PEOPLE.items()
        }
        self.devices: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start_servers(self) -> list[tuple[str, int, str]]:
        """Start node, coordinator and gateway; return name, process id and first words of each."""
        self._node_secret.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._node_secret.touch(mode=0o600)
        self._node_secret.write_text(secrets.token_urlsafe(32))
        self.site.bundles().settle()
        node = self._start(
            "node",
            bedside_command(
                "node", "--listen", self._node_address, "--secret", f"file:{self._node_secret}"
            ),
        )
        coordinator = self._start("coordinator", bedside_command("coordinator"))
        words = [node.wait_for(_ready, START_TIMEOUT_S)]
        words.append(coordinator.wait_for(_ready, START_TIMEOUT_S))
        gateway = self._start("gateway", bedside_command("gateway"))
        words.append(gateway.wait_for(_ready, START_TIMEOUT_S))
        children = (node, coordinator, gateway)
        return [(child.name, child.pid, text) for child, text in zip(children, words, strict=True)]

    def start_devices(self) -> list[tuple[str, int, str]]:
        """Enrol four devices with data of their own and start their agents."""
        with ThreadPoolExecutor(len(self._cohorts.devices)) as pool:
            return list(pool.map(self._start_device, range(len(self._cohorts.devices))))

    def stop(self) -> None:
        """End every process, in reverse order of their start."""
        with ThreadPoolExecutor(max(len(self._children), 1)) as pool:
            # Devices first and together: each may have a Flower process to end.
            list(pool.map(Child.stop, self._children[3:]))
        for child in reversed(self._children[:3]):
            child.stop()
        self._children.clear()

    def _start_device(self, number: int) -> tuple[str, int, str]:
        patients = self._cohorts.devices[number]
        folder = self.folder / "devices" / f"device-{number + 1}"
        answer = call_api(
            "POST",
            f"{self.coordinator_url}/v1/devices/codes",
            self.tokens["it.operator"],
            {"jurisdiction": "US-CA", "subjects": [patient.subject for patient in patients]},
        )
        name = f"device {number + 1}"
        enrolling = self._start(
            f"{name} enrolment",
            _device_command(
                "enroll",
                "--coordinator",
                self.coordinator_url,
                "--code",
                answer["code"],
                "--state",
                str(folder),
            ),
        )
        enrolling.wait_for(lambda line: "enrolled" in line, START_TIMEOUT_S)
        SqliteData(folder / "data.sqlite").write(
            (patient.subject, patient.features, patient.label) for patient in patients
        )
        agent = self._start(
            name,
            _device_command("run", "--state", str(folder), "--model", EXAMPLE_MODEL, "--federated"),
        )
        agent.wait_for(lambda line: '"connected"' in line, START_TIMEOUT_S)
        self.devices.append(folder)
        return name, agent.pid, f"channel open, holds {len(patients)} patients"

    def _start(self, name: str, command: list[str]) -> Child:
        child = Child(
            name,
            command,
            log=self.folder / "output" / f"{name.replace(' ', '-')}.log",
            environment=environment_of(self.site.config),
        )
        self._children.append(child)
        return child


def _device_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bedside_client", *arguments]


def _ready(line: str) -> bool:
    return " ready at " in line


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
