"""Child processes of `bedside up` and the demo: started, awaited by their first line, ended whole."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Final

from bedside.errors import BedsideError

STOP_GRACE_S: Final = 20


def bedside_command(*arguments: str) -> list[str]:
    """Return the command line of a `bedside` command in this environment."""
    return [sys.executable, "-m", "bedside", *arguments]


class Child:
    """One child process in a group of its own; its standard output is read line by line."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, name=f"{name}-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._process.pid

    def wait_for(self, found: Callable[[str], bool], timeout_s: float) -> str:
        """Return the first line of output that `found` accepts.

        Raises:
            BedsideError: if the child ends or `timeout_s` passes first.
        """
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except Empty as error:
                raise BedsideError(f"{self.name} was not ready within {timeout_s:.0f} s") from error
            if not line:
                self._process.wait()
                raise BedsideError(f"{self.name} ended early: {self._last_words()}")
            if found(line):
                return line

    def stop(self) -> None:
        """Ask the child to stop; end its whole group if it takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        if self._process.stdout is None:
            message = "the child's output is a pipe"
            raise AssertionError(message)
        with self._log.open("ab") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                self._lines.put(line.decode(errors="replace").rstrip("\n") or " ")
        self._lines.put("")

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"
