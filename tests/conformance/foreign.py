"""A real MLServer, started from its own environment on free ports of the loopback."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from support import call
from support.environments import environment
from support.sites import free_port

HERE = Path(__file__).parent
READY_TIMEOUT_S = 60

MODELS = {
    "softmax": {
        "implementation": "mlserver_models.Softmax",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    },
    "versioned": {"implementation": "mlserver_models.Echo", "parameters": {"version": "v2"}},
    "echo": {"implementation": "mlserver_models.Echo"},
    "failing": {"implementation": "mlserver_models.Failing"},
}


class MLServer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "mlserver.log"
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "host": "127.0.0.1",
            "http_port": self.port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 0,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        for name, model in MODELS.items():
            (folder / name).mkdir()
            (folder / name / "model-settings.json").write_text(json.dumps({"name": name, **model}))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        python = environment(HERE / "mlserver.txt")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [python.with_name("mlserver"), "start", self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(HERE)},
                start_new_session=True,
            )
        ends = time.monotonic() + READY_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < ends, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return call("GET", f"{self.url}/v2/health/ready").status == 200
        except OSError:
            return False
