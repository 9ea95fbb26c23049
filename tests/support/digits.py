"""The digits of the how-to: its own script, run once."""

import re
import subprocess
import sys
from pathlib import Path

HOW_TO = Path(__file__).parents[2] / "docs/how-to/quantize-a-model.md"


def write_script(folder: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    (folder / "digits.py").write_text(script)


def how_to_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def shell(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", "-euc", "\n".join(commands)],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
    )
