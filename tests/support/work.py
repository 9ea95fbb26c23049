"""Callers of asynchronous work, and a site whose node can be frozen."""

import os
import signal
import threading
from pathlib import Path

from bedside.children import Child, bedside_command
from bedside.site import Site
from bedside.up import environment_of
from support.http import Reply, call
from support.sites import ROW, GatewayProcess, free_port, make_site

_pause = threading.Event()


def submit(gateway: GatewayProcess, body=ROW, *, path="", principal="dr.adams", **headers) -> Reply:
    named = {f"Bedside-{name.replace('_', '-')}": value for name, value in headers.items()}
    url = f"{gateway.url}/v1/models/breast-cancer{path}/work"
    return call("POST", url, token=gateway.token(principal), body=body, headers=named)


def work_url(gateway: GatewayProcess, reply: Reply) -> str:
    assert reply.status == 202, reply.body
    return gateway.url + reply.headers["location"]


def look(gateway: GatewayProcess, url: str, principal="dr.adams") -> Reply:
    return call("GET", url, token=gateway.token(principal))


def fetch(gateway: GatewayProcess, url: str, principal="dr.adams") -> Reply:
    return call("GET", f"{url}/result", token=gateway.token(principal))


def cancel(gateway: GatewayProcess, url: str, principal="dr.adams") -> Reply:
    return call("DELETE", url, token=gateway.token(principal))


def until(gateway: GatewayProcess, url: str, *states: str) -> dict:
    """Ask where the work stands until it is in one of `states`."""
    while True:
        document = look(gateway, url).json
        if document["state"] in states:
            return document
        _pause.wait(0.02)


class NodeProcess:
    """A real `bedside node`, which can be stopped in the middle of what it does."""

    def __init__(self, site: Site, folder: Path, port: int) -> None:
        self.child = Child(
            "node",
            bedside_command("node", "--listen", f"127.0.0.1:{port}"),
            log=folder / "node.log",
            environment=environment_of(site.config),
        )
        self.child.wait_for(lambda line: line.startswith("node ready"), 60)

    def freeze(self) -> None:
        os.kill(self.child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.child.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self.child.stop()


def site_with_node(folder: Path, port: int | None = None, **gateway) -> tuple[Site, int]:
    """Return a site that routes to a node of its own on the returned port."""
    port = port or free_port()
    node = {"id": "us-1", "jurisdiction": "US-CA", "url": f"http://127.0.0.1:{port}"}
    return make_site(folder, gateway={"nodes": (node,), **gateway}), port
