"""A page of the documentation: the commands that it shows, and what it says that they print."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
# Where a page says that the gateway listens.
GATEWAY = "http://127.0.0.1:8080"


class Page:
    """The lines after `$ ` in its `console` blocks, and what `<!-- prints: ... -->` says of them."""

    def __init__(self, name: str) -> None:
        self.text = (DOCS / name).read_text()
        blocks = re.findall(r"```console\n(.*?)```", self.text, re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        self.commands = [line[2:] for line in lines if line.startswith("$ ")]
        self.prints = re.findall(r"<!-- prints: (.*?) -->", self.text)
        assert self.commands, name
        assert self.prints, name

    def settings(self) -> str:
        """Return its only block of settings."""
        (block,) = re.findall(r"```toml\n(.*?)```", self.text, re.DOTALL)
        return block

    def shown_by(self, output: str) -> None:
        """Fail unless `output` has all that the page says is printed."""
        for expected in self.prints:
            assert expected in output, (expected, output)


def run_lines(
    lines: Sequence[str],
    folder: Path,
    *,
    url: str | None = None,
    environment: Mapping[str, str] | None = None,
    stop_at_failure: bool = True,
) -> str:
    """Run `lines` in one shell in `folder`, with the gateway at `url`; return all that they print.

    The shell stops at the first failure, or else the last line must succeed.
    """
    script = "\n".join(lines)
    if url is not None:
        script = script.replace(GATEWAY, url)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc" if stop_at_failure else "-uc", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "HOME": str(folder), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
