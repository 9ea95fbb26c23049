import os
import signal
from pathlib import Path
from typing import Self

from bedside.children import Child, bedside_command
from bedside.site import Site
from bedside.up import environment_of
from support.sites import free_port


class NodeProcess:
    """A real `bedside node` on a port of its own, serving the site's models."""

    def __init__(
        self,
        site: Site,
        folder: Path,
        name: str,
        where: str | None = None,
        secret: str | None = None,
    ) -> None:
        self.name = name
        self.where = where or f"127.0.0.1:{free_port()}"
        self.url = self.where if self.where.startswith("unix:") else f"http://{self.where}"
        self.log = folder / f"{name}.log"
        self._environment = environment_of(site.config)
        self._secret = () if secret is None else ("--secret", secret)
        self.child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        command = bedside_command("node", "--listen", self.where, *self._secret)
        self.child = Child(self.name, command, log=self.log, environment=self._environment)
        self.child.wait_for(lambda line: " ready at " in line, 60)

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self.child = None

    def signal(self, number: signal.Signals) -> None:
        assert self.child is not None
        os.kill(self.child.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.stop()
