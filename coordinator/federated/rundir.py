"""What the coordinator and the ServerApp, two processes, give each other in a run's private folder.

job.json      the signed job, sent on as it is
cohort.json   {"<device>": "<raw Ed25519 public key, hexadecimal>"}
result.json   the cohort's sum, or why there is none; never a device's own counts
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coordinator.errors import JobError
from coordinator.federated.job import Outcome

RUNS_VARIABLE: Final = "FEDERATED_RUN_FOLDERS"

_JOB: Final = "job.json"
_COHORT: Final = "cohort.json"
_RESULT: Final = "result.json"


class RunFolder:
    """The folder of one run, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, runs: Path, name: str, job: bytes, cohort: Mapping[str, str]) -> "RunFolder":
        """Make the folder of the run `name` with its signed job and its cohort's public keys."""
        path = runs / name
        path.mkdir(mode=0o700, parents=True)
        (path / _JOB).write_bytes(job)
        (path / _COHORT).write_bytes(msgspec.json.encode(cohort, order="deterministic"))
        return cls(path)

    @classmethod
    def named(cls, name: str) -> "RunFolder":
        """Return the run folder `name` below the one that the coordinator's environment names.

        Raises:
            JobError: if there is none.
        """
        runs = os.environ.get(RUNS_VARIABLE)
        # The name comes from a run's configuration, so it must not lead out of the folder.
        if runs is None or not name or not set(name) <= _NAME or not (Path(runs) / name).is_dir():
            raise JobError("there is no such run; jobs are submitted by the coordinator only")
        return cls(Path(runs) / name)

    def job(self) -> bytes:
        """Return the signed job."""
        return (self.path / _JOB).read_bytes()

    def cohort(self) -> dict[str, Ed25519PublicKey]:
        """Return the cohort's keys by device."""
        keys = msgspec.json.decode((self.path / _COHORT).read_bytes(), type=dict[str, str])
        return {
            device: Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
            for device, key in keys.items()
        }

    def write(self, outcome: Outcome) -> None:
        """Leave the outcome for the coordinator, whole or not at all."""
        temporary = self.path / f"{_RESULT}.tmp"
        temporary.write_bytes(msgspec.json.encode(outcome))
        temporary.replace(self.path / _RESULT)

    def ended(self) -> bool:
        """Say whether there is an outcome."""
        return (self.path / _RESULT).exists()

    def outcome(self) -> Outcome:
        """Return the outcome.

        Raises:
            JobError: if it is not one.
        """
        try:
            return msgspec.json.decode((self.path / _RESULT).read_bytes(), type=Outcome)
        except (OSError, msgspec.MsgspecError) as error:
            raise JobError("the run left no readable result") from error


_NAME: Final = frozenset("0123456789abcdef-")
