"""Flower's SuperLink as a child process, and runs submitted to it; nobody types `flwr`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

from coordinator.errors import JobError
from coordinator.federated.job import Outcome
from coordinator.federated.rundir import RUNS_VARIABLE, RunFolder

APP: Final = Path(__file__).parent / "app"
LAUNCHER: Final = Path(__file__).parent / "launch.py"
HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 60.0
STOP_GRACE_S: Final = 10.0
POLL_S: Final = 0.1
# Asking Flower costs a second of processor time; the outcome itself is noticed at once.
STATUS_EVERY_S: Final = 15.0

_ENDED: Final = "finished"


class SuperLink:
    """Owns one SuperLink. Its state is kept in memory only: replies of devices never reach a disk."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._folder = folder
        self._port = port or _free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def runs(self) -> Path:
        """The folder whose run folders the ServerApp may read."""
        return self._folder / "runs"

    @property
    def address(self) -> str:
        """Where SuperNodes connect: host:port."""
        return f"{HOST}:{self._port}"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process and wait until it accepts connections.

        Raises:
            JobError: if it does not start.
        """
        log = await asyncio.to_thread(self._prepare)
        with log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(LAUNCHER),
                _program("flower-superlink"),
                "--insecure",
                "--disable-runtime-dependency-installation",
                "--host",
                HOST,
                "--port",
                str(self._port),
                # Flower would start the process that starts ServerApps in a session of its own,
                # out of reach; started here, it belongs to the group.
                "--isolation",
                "process",
                "--",
                _program("flower-superexec"),
                "--insecure",
                "--runtime-api-address",
                self.address,
                env=self._environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A group of its own, which ends as a whole, also when this process is killed.
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._accepts():
                    if not self.running:
                        raise JobError("Flower's SuperLink ended at once; see superlink.log")
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise JobError("Flower's SuperLink did not start in time; see superlink.log") from error

    async def stop(self) -> None:
        """End the process and everything that it started."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE_S):
                await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def run(self, folder: RunFolder, timeout_s: float) -> Outcome:
        """Submit one run and return what it leaves in `folder`.

        The ServerApp is given half of the time, so that it can say why there is no result.

        Raises:
            JobError: if it cannot be submitted, fails, or takes longer than `timeout_s`.
        """
        if not self.running:
            raise JobError("Flower's SuperLink is not running")
        # Names only: devices are told a run's configuration, and our paths are none of theirs.
        settings = f'run="{folder.path.name}" timeout-s={timeout_s / 2}'
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._flwr("run", str(APP), "bedside", "--run-config", settings)
                run_id = answer.get("run-id")
                if not isinstance(run_id, str):
                    raise JobError("Flower did not accept the run; see superlink.log")
                await self._wait(run_id, folder)
        except TimeoutError as error:
            raise JobError("the run did not end in time") from error
        return folder.outcome()

    async def _wait(self, run_id: str, folder: RunFolder) -> None:
        loop = asyncio.get_running_loop()
        ask_at = loop.time() + STATUS_EVERY_S
        while not folder.ended():
            if not self.running:
                raise JobError("Flower's SuperLink ended during the run")
            if loop.time() >= ask_at:
                answer = await self._flwr("ls", "bedside", "--run-id", run_id)
                ended = any(run["status"].startswith(_ENDED) for run in answer.get("runs", ()))
                if ended and not folder.ended():
                    raise JobError("the run failed; see superlink.log")
                ask_at = loop.time() + STATUS_EVERY_S
            await asyncio.sleep(POLL_S)

    async def _flwr(self, *arguments: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            _program("flwr"),
            *arguments,
            "--format",
            "json",
            env=self._environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            answer: dict[str, Any] = json.loads(output)
        except ValueError as error:
            raise JobError("Flower's command line did not answer") from error
        return answer

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            return False
        writer.close()
        return True

    def _prepare(self):  # type: ignore[no-untyped-def]  # noqa: ANN202 an open binary file
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "config.toml").write_text(
            f'[superlink]\ndefault = "bedside"\n\n[superlink.bedside]\naddress = "{self.address}"\n'
            "insecure = true\n"
        )
        return (self._folder / "superlink.log").open("ab")

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            # Flower starts its own helpers by name.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "FLWR_HOME": str(self._folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            # How often Flower's launcher looks for a run to start; its default is 1 s.
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            RUNS_VARIABLE: str(self.runs),
        }


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
