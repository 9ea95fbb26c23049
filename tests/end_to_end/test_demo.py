"""The README's first command: the whole main job, with real processes."""

import os
import subprocess

import pytest

from bedside.children import bedside_command


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    state = tmp_path_factory.mktemp("demo") / "state"
    done = subprocess.run(
        bedside_command("demo", "--state", str(state)), capture_output=True, text=True, timeout=300
    )
    return done, state


def test_every_expectation_holds(demo):
    done, state = demo
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "0 failed" in done.stdout
    assert str(state) in done.stdout


def test_it_leaves_a_report_and_no_process(demo):
    _, state = demo
    for suffix in ("pdf", "csv", "json"):
        assert (state / f"report/access-report.{suffix}").stat().st_size > 1000
    left = [
        pid
        for pid in os.listdir("/proc")
        if pid.isdigit() and _mentions(pid, str(state)) and int(pid) != os.getpid()
    ]
    assert left == []


def test_it_does_not_write_into_a_folder_in_use(demo):
    _, state = demo
    again = subprocess.run(
        bedside_command("demo", "--state", str(state)), capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "not empty" in again.stderr


def _mentions(pid, text):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return text.encode() in file.read()
    except OSError:
        return False
