"""`bedside up`, embedded, as a new user would try it: what it prints works as it is."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import call
from support.sites import free_port

from bedside.children import bedside_command

SDK_README = Path(__file__).parents[2] / "client_sdk/python/README.md"
GRPC_PAGE = Path(__file__).parents[2] / "docs/reference/grpc.md"
QUICK_START = Path(__file__).parents[2] / "docs/tutorials/quick-start.md"


class Up:
    def __init__(self, folder):
        self.folder = folder
        self.port, coordinator_port, console_port = free_port(), free_port(), free_port()
        (folder / "bedside.toml").write_text(
            f"[gateway]\nport = {self.port}\n[coordinator]\nport = {coordinator_port}\n"
            f"[console]\nport = {console_port}\n"
        )
        self.process = subprocess.Popen(
            bedside_command("up"),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output = ""
        for line in self.process.stdout:
            self.output += line
            if line.startswith("Ctrl-C"):
                return
        pytest.fail(f"it did not come up: {self.output}{self.process.stderr.read()}")

    def shell(self, script):
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        return subprocess.run(
            ["bash", "-euc", script],
            cwd=self.folder,
            env={"PATH": path, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        rest, errors = self.process.communicate(timeout=60)
        return self.process.returncode, rest, errors


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    running = Up(tmp_path_factory.mktemp("up"))
    yield running
    if running.process.poll() is None:
        running.stop()


def test_the_line_that_it_prints_works(up):
    exports = re.findall(r"^  (export \w+=\S+)$", up.output, re.MULTILINE)
    (curl,) = re.findall(r"^  (curl .*?'\{.*\}')$", up.output, re.MULTILINE | re.DOTALL)
    done = up.shell("\n".join([*exports, curl]))
    answer = json.loads(done.stdout)
    assert answer["outputs"][0]["shape"] == [1, 2]
    assert answer["parameters"]["bedside_placement"] == "node:local"
    assert answer["parameters"]["bedside_policies"] == "hipaa-treatment"


def test_the_quick_start_works_as_it_is_written(up):
    text = QUICK_START.read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) >= 6
    exports = re.findall(r"^  (export \w+=\S+)$", up.output, re.MULTILINE)
    script = "\n".join(
        [
            *exports,
            *(line for line in lines if not line.startswith(("git ", "cd ", "make ", "export "))),
        ]
    )
    script = script.replace("bedside up &", ":").replace("127.0.0.1:8080", f"127.0.0.1:{up.port}")
    script = script.replace(".venv/bin/bedside", "bedside")
    done = up.shell(script)
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in re.findall(r"<!-- prints: (.*?) -->", text):
        assert expected in done.stdout + done.stderr, (expected, done.stdout)


def test_the_sdks_quick_start_works_as_it_is_written(up):
    text = SDK_README.read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    (token,) = re.findall(r"export TOKEN=(\S+)", up.output)
    code = code.replace("127.0.0.1:8080", f"127.0.0.1:{up.port}")
    names = {"token": token, "row": np.ones((1, 30), np.float32)}
    exec(compile(code.replace("print(", "shown = ("), "README", "exec"), names)
    outputs, placement, policies, record = names["shown"]
    assert outputs.shape == (1, 2)
    assert (placement, policies) == ("node:local", ("hipaa-treatment",))
    assert record.startswith("clinic/gateway-1#")


def test_the_grpc_example_works_as_it_is_written(up):
    code = re.findall(r"```python\n(.*?)```", GRPC_PAGE.read_text(), re.DOTALL)[0]
    (token,) = re.findall(r"export TOKEN=(\S+)", up.output)
    (address,) = re.findall(r"^  gRPC +(\S+)", up.output, re.MULTILINE)
    names = {"token": token, "address": address}
    exec(compile(code, "grpc.md", "exec"), names)
    assert names["probabilities"].shape == (1, 2)
    assert names["record"].startswith("clinic/gateway-1#")


def test_its_command_line_reads_what_it_recorded(up):
    call("GET", f"http://127.0.0.1:{up.port}/v2/models/breast-cancer")
    for command, expected in {
        "bedside audit records": "models",
        "bedside audit verify": "verified:",
        "bedside audit report --out report": "access-report.pdf",
        "bedside audit keys": "clinic/gateway-1+",
        "bedside models list": "breast-cancer",
        "bedside policy check": "policies are valid",
        "bedside policy test": "cases passed",
        "bedside console user list": "account",
        "bedside policy explain --role clinician --jurisdiction DE": "GDPR Art. 44",
    }.items():
        done = up.shell(command)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout, command


def test_it_stops_cleanly_and_a_second_start_goes_on_from_its_state(tmp_path):
    up = Up(tmp_path)
    code, rest, errors = up.stop()
    assert code == 0, errors
    assert rest.endswith("stopped\n")
    assert "Traceback" not in errors
    assert up.shell("bedside audit verify").returncode == 0
    again = Up(tmp_path)
    assert "no model yet" not in again.output
    assert again.stop()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["token", "issue", "Jane Doe", "--role", "clinician"], "principal's name"),
        (["audit", "verify", "nothing"], "no log yet"),
        (["gateway", "--config", "nothing.toml"], "no configuration file"),
        (["gateway", "--config", "bad.toml"], "gatway"),
        (["gateway", "--config", "worse.toml"], "not valid TOML"),
        (["node", "--listen", "nowhere"], "host:port"),
        (["demo", "--state", "/proc/nowhere"], "/proc/nowhere"),
        (["coordinator", "devices", "list", "--token", "x", "--url", "http://127.0.0.1:9"], "nothing"),
    ],
)
def test_errors_are_one_clear_line_and_never_a_traceback(tmp_path, arguments, words):
    (tmp_path / "bad.toml").write_text("[gatway]\nport = 1\n")
    (tmp_path / "worse.toml").write_text("[gateway\n")
    done = subprocess.run(
        bedside_command(*arguments), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    ["up", "demo", "gateway", "node", "coordinator", "console", "token", "audit", "policy", "models"],
)
def test_every_command_explains_itself(command):
    done = subprocess.run(
        bedside_command(command, "--help"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "sage" in done.stdout
    assert shlex.quote(command) in done.stdout
