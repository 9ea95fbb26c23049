"""What a device's agent writes is its own events and errors, and nothing of what it works on.

Seen to fail: without the `dup2` to nowhere in `own_output`.
"""

import json
import subprocess
import sys

import pytest

from bedside_client.output import place_of

WORD = "4711 of a patient"
LEAK = """
import ctypes, logging, os, resource, sys, warnings
from bedside_client import __main__ as command

async def leak(folder, *, models, federated, event):
    word = sys.argv[1]
    event("connected", {"core": resource.getrlimit(resource.RLIMIT_CORE)[0]})
    print(word)
    logging.getLogger("flwr").error(word)
    warnings.warn(word)
    ctypes.CDLL(None).dprintf(2, b"%s\\n", word.encode())
    os.system(f"echo {word}")
    raise (command.BedsideClientError if sys.argv[2] == "ours" else ValueError)(f"{sys.argv[2]} {word}")

command.run_agent = leak
sys.exit(command.main(["run", "--state", "nowhere"]))
"""


@pytest.mark.parametrize(
    ("whose", "told"),
    [("theirs", "unforeseen ValueError at __main__:13"), ("ours", f"ours {WORD}")],
)
def test_only_events_and_our_own_errors_are_written(whose, told):
    done = subprocess.run(
        [sys.executable, "-c", LEAK, WORD, whose], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    (event,) = done.stdout.splitlines()
    assert json.loads(event) in ({"event": "connected", "core": limit} for limit in (0, 1))
    assert done.stderr == f"bedside device: {told}\n"


def test_an_error_is_its_type_and_its_place():
    assert place_of(ValueError(WORD)) == "ValueError"
    with pytest.raises(ValueError, match="patient") as raised:
        raise ValueError(WORD)
    assert place_of(raised.value).startswith("ValueError at ")
    assert WORD not in place_of(raised.value)
