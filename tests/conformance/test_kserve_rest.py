"""KServe's own Python client over REST, unchanged, with the facts as headers."""

import json
import subprocess
from pathlib import Path

from support.environments import environment

HERE = Path(__file__).parent


def test_its_client_is_served_and_told_why_it_is_refused(gateway, headers):
    python = environment(HERE / "kserve.txt")
    abroad = headers(**{"Bedside-Jurisdiction": "DE", "Bedside-Data-Class": "phi"})
    asked = {"url": gateway.url, "headers": headers(), "refused": abroad}
    done = subprocess.run(
        [python, HERE / "kserve_client.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["live"], found["ready"]) == (True, True)
    assert (found["model ready"], found["unknown ready"]) == (True, False)
    assert [answer["binary"] for answer in found["inferred"]] == [True, False, True, False]
    for answer in found["inferred"]:
        # Without a version the highest is meant, and the second one gives the negative.
        assert answer["data"] == [[-value for value in row] for row in found["sent"]]
        assert (answer["id"], answer["model"]) == ("kserve-7", "identity-fp32")
        assert answer["parameters"]["bedside_record"] == answer["record"]
        assert answer["parameters"]["bedside_policies"]
    assert found["refused"]["status"] == 403
    assert "gdpr-transfer" in found["refused"]["message"]
