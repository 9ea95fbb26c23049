"""What the page on performance tells one to run is there, and says what it does."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/explanation/performance.md"


def commands():
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [
        shlex.split(line[2:])
        for block in blocks
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_benchmark_is_on_the_page():
    shown = {command[1] for command in commands()}
    there = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "benchmarks").rglob("*.py")
        if "__main__" in path.read_text()
    }
    assert shown == there


@pytest.mark.parametrize("script", sorted({command[1] for command in commands()}))
def test_a_command_of_the_page_takes_the_options_that_are_shown(script):
    described = run(script, "--help")
    assert described.returncode == 0, described.stderr
    known = set(re.findall(r"--[a-z-]+", described.stdout))
    for command in commands():
        if command[1] == script:
            assert {word for word in command if word.startswith("--")} <= known


def test_a_machine_without_a_gpu_is_told_that_nothing_was_measured():
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    done = run("benchmarks/cuda.py")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "not measured" in done.stderr


def test_the_open_loop_counts_answers_and_refusals(tmp_path):
    """The load has to be right before anything that it says is."""
    server = tmp_path / "server.py"
    server.write_text(
        "import http.server, sys\n"
        "class Every(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    count = 0\n"
        "    def do_POST(self):\n"
        "        Every.count += 1\n"
        "        self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(200 if Every.count % 2 else 503)\n"
        "        self.send_header('content-length', '0')\n"
        "        self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Every)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    body = tmp_path / "body.json"
    body.write_text("{}")
    child = subprocess.Popen([sys.executable, server], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{child.stdout.readline().strip()}/"
        options = ["--body", str(body), "--connections", "4", "--seconds", "1", "--warm", "0"]
        done = run("benchmarks/load.py", url, *options, "--rate", "100")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["per_s"] > 0
    assert counted["refused_per_s"] > 0
    assert {"200", "503"} <= set(counted)
    # One in two is refused, give or take what was under way at the end.
    assert abs(counted["per_s"] - counted["refused_per_s"]) * counted["elapsed_s"] <= 5
