"""What Flower's processes write ends in a file: only what cannot hold what devices sent.

Seen to fail: with `return line` for every line in `screened`.
"""

import subprocess
import sys

import pytest
from support.canaries import TAG, Planter

from coordinator.federated.launch import screened
from coordinator.federated.superlink import LAUNCHER

LEAK = """
import sys
word = sys.argv[1]
print("INFO :      Starting Flower SuperLink")
print("INFO :      " + word)
sys.stderr.write(f"\\x1b[91mERROR \\x1b[0m:     ServerApp failed with exception: {word}\\n")
open(f"/{word}.py") if len(word) < 9 else int(word)
"""


def test_what_flower_writes_is_screened_and_counted(tmp_path):
    plant = Planter()
    script = tmp_path / "flower.py"
    script.write_text(LEAK)
    # Its standard input stays open: at its end everything would end.
    with subprocess.Popen(
        [sys.executable, str(LAUNCHER), sys.executable, "-u", str(script), plant.text()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as launcher:
        said = launcher.stdout.read()
    assert not list(plant.canaries.matches(said))
    assert said.decode().splitlines() == [
        "INFO :      Starting Flower SuperLink",
        "Traceback (most recent call last):",
        f'  File "{script}", line 7, in <module>',
        "ValueError",
        "withheld: 4 lines",
    ]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("OSError: [Errno 98] Address already in use: " + TAG, "OSError [Errno 98]"),
        ("KeyError: 'mrn-0001'", "KeyError"),
        ("INFO :      Starting Flower SuperLink " + TAG, None),
        (f'  File "/{TAG}.py", line 1, in x', None),
        ("grpc._channel._InactiveRpcError: " + TAG, None),
        (TAG, None),
        ("mrn", None),
        ("print: 1", None),
        ("", None),
    ],
)
def test_a_line_is_passed_on_by_its_form(line, kept):
    assert screened(line) == kept
