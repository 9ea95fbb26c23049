"""KServe's own Python client over gRPC, unmodified, against a live gateway."""

import json
import subprocess
from pathlib import Path

import pytest
from support.environments import environment

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def report(gateway, facts):
    python = environment(HERE.parent / "kserve.txt")
    done = subprocess.run(
        [python, HERE / "kserve_grpc.py", gateway.grpc_address, json.dumps(facts())],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_health_and_readiness(report):
    assert (report["live"], report["ready"]) == (True, True)
    assert (report["model ready"], report["other ready"]) == (True, False)


def test_inference_typed_and_raw(report):
    # The second version, which is the one that is meant, gives the negatives.
    assert report["outputs"] == [[[0.5, -1.25, -3.0]]] * 2
    assert report["ids"] == ["7", "7"]
    assert report["placements"] == ["node:local"] * 2


def test_its_errors_are_statuses(report):
    assert report["stranger"] == "UNAUTHENTICATED"
