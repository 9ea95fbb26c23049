import itertools
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from audit.records import AnyRecord, decode
from audit.verify import read_checkpoint, read_entries, verify_log
from bedside.children import Child, bedside_command
from bedside.config import Config, TelemetryEntry
from bedside.site import Site
from bedside.up import environment_of
from policies import Role
from secure_gateway import GatewaySettings
from support.http import call

LOWEST_PORT = 12_000
SHARES = 8
LEAST_SHARE = 100

ROW = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, 0.3]}]}


def make_site(folder: Path, **settings: Any) -> Site:
    gateway = GatewaySettings(port=free_port(), **settings.pop("gateway", {}))
    # Whatever a test searches, it searches what is written at the level that says most.
    settings.setdefault("telemetry", TelemetryEntry(log_level="debug"))
    return Site(Config(site="clinic", data=folder / "site", gateway=gateway, **settings))


def free_port() -> int:
    """Return a port that nobody has, and nobody is given until a server was started on it.

    The system hands out ports for connections from its own range, and the other test processes draw
    from shares of theirs, so that none of them takes it meanwhile.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen()
            except OSError:
                continue
            return port
    raise AssertionError("the ports do not end")


def _ports() -> Iterator[int]:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = max((first - LOWEST_PORT) // SHARES, LEAST_SHARE)
    lowest = LOWEST_PORT + worker % SHARES * share
    # Runs side by side, of two checkouts say, begin in different places.
    start = os.getpid() % share
    for number in itertools.count(start):
        yield lowest + number % share


_PORTS = _ports()


class GatewayProcess:
    """A real `bedside gateway` with an embedded node."""

    def __init__(self, site: Site, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.site = site
        self.url = f"http://127.0.0.1:{site.config.gateway.port}"
        self.grpc_address = f"127.0.0.1:{site.config.gateway.grpc_port}"
        self.infer_url = f"{self.url}/v2/models/breast-cancer/infer"
        self.log = folder / "gateway.log"
        self._environment = {**environment_of(site.config), **(environment or {})}
        self.child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.child = Child(
            "gateway", bedside_command("gateway"), log=self.log, environment=self._environment
        )
        self.child.wait_for(lambda line: " ready at " in line, 60)

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self.child = None

    def kill(self) -> None:
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGKILL)
        self.stop()

    def under_way(self, model: str) -> float | None:
        """Return how many places requests to `model` hold; None if none was ever asked for."""
        reply = call("GET", f"{self.url}/metrics", token=self.token(role=Role.OPERATOR))
        name = f'bedside_gateway_requests_in_flight{{model="{model}"}}'
        lines = reply.body.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), None)

    def token(self, principal: str = "dr.adams", role: Role = Role.CLINICIAN, hours: float = 1) -> str:
        return self.site.token_issuer().issue(principal, [role], lifetime_s=int(hours * 3600))


def records_of(site: Site, replica: str = "gateway-1") -> list[AnyRecord]:
    """Return the records of a stopped gateway's log, verified."""
    folder, verifier = site.log_folder(replica), site.log_verifier(replica)
    verify_log(folder, verifier)
    size = read_checkpoint(folder, verifier).size
    return [decode(leaf) for leaf in read_entries(folder, size)]
