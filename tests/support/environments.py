"""Virtual environments of their own for outside programs whose requirements fight ours.

Each is built once, from a complete list of pinned requirements, under the folder that
`CONFORMANCE_ENVIRONMENTS` names or `.cache/environments` in the repository. Its name holds a digest of
the list, so that a changed list is another environment.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "CONFORMANCE_ENVIRONMENTS"
REPOSITORY = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 900
_COMPLETE = "complete"


class EnvironmentUnavailable(Exception):
    """Raised when an environment cannot be built; says how to try it by hand."""


def environment(requirements: Path) -> Path:
    """Return the Python of the environment that `requirements` describes; build it if need be.

    Other test processes wait meanwhile. An environment without its last file was not finished, and is
    built again.

    Raises:
        EnvironmentUnavailable: if it cannot be built.
    """
    content = requirements.read_bytes() + sys.version.encode()
    name = f"{requirements.stem}-{hashlib.sha256(content).hexdigest()[:16]}"
    folder = _root() / name
    python = folder / "bin" / "python"
    with _alone(folder.with_suffix(".lock")):
        if not (folder / _COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build(folder, python, requirements)
            (folder / _COMPLETE).touch()
    return python


def _root() -> Path:
    configured = os.environ.get(VARIABLE)
    if configured:
        root = Path(configured)
        root.mkdir(parents=True, exist_ok=True)
        return root
    cache = REPOSITORY / ".cache"
    root = cache / "environments"
    root.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    return root


def _build(folder: Path, python: Path, requirements: Path) -> None:
    venv.create(folder, symlinks=True, with_pip=False)
    # The list is complete, so that pip has nothing to resolve and installs in seconds.
    command = [
        sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check",
        "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--requirement",
        str(requirements),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        last = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
        raise EnvironmentUnavailable(
            f"the environment of {requirements.name} cannot be built: "
            f"{' '.join(last) or error.stderr.strip()[-500:]}; try `{' '.join(command)}`, or set "
            f"{VARIABLE} to a folder that holds it"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnavailable(
            f"the environment of {requirements.name} was not built within {BUILD_TIMEOUT_S} s"
        ) from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
