"""What a device keeps: who it is, whom it trusts, its models and its own data.

<folder>/device.json    what enrolment answered
<folder>/identity.key   the device's private key
<folder>/models/        verified packages, as `<model>/<version>/`
<folder>/data.sqlite    the data that never leaves (see `data.py`)
"""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bedside_client.errors import StateError
from bedside_client.keys import DeviceIdentity

DOCUMENT: Final = "device.json"
IDENTITY: Final = "identity.key"


class Trust(Struct, frozen=True, kw_only=True):
    """The Ed25519 keys (raw, hexadecimal) that may sign releases and federated jobs."""

    release_keys: tuple[str, ...]
    job_keys: tuple[str, ...]


class Enrolment(Struct, frozen=True, kw_only=True):
    """What the coordinator told the device when it was enrolled."""

    device: str
    site: str
    gateway_url: str
    coordinator_url: str
    trust: Trust
    cohort_minimum: int
    superlink: str | None = None


class DeviceState:
    """One device's folder."""

    def __init__(self, folder: Path, enrolment: Enrolment, identity: DeviceIdentity) -> None:
        self.folder = folder
        self.enrolment = enrolment
        self.identity = identity

    @classmethod
    def open(cls, folder: Path) -> "DeviceState":
        """Return the state of an enrolled device.

        Raises:
            StateError: if `folder` holds none.
        """
        try:
            enrolment = msgspec.json.decode((folder / DOCUMENT).read_bytes(), type=Enrolment)
        except FileNotFoundError as error:
            raise StateError(f"{folder} holds no enrolled device; enrol it first") from error
        except msgspec.MsgspecError as error:
            raise StateError(f"{folder / DOCUMENT} is damaged; enrol the device again") from error
        if not (folder / IDENTITY).is_file():
            raise StateError("the device's key is gone; enrol the device again")
        return cls(folder, enrolment, DeviceIdentity.open(folder / IDENTITY))

    @classmethod
    def create(cls, folder: Path, enrolment: Enrolment) -> "DeviceState":
        """Store what enrolment answered, whole or not at all."""
        temporary = folder / f"{DOCUMENT}.tmp"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(enrolment)))
        temporary.replace(folder / DOCUMENT)
        return cls(folder, enrolment, DeviceIdentity.open(folder / IDENTITY))

    @property
    def models(self) -> Path:
        """Where verified packages are."""
        return self.folder / "models"

    @property
    def data(self) -> Path:
        """Where the default data provider reads."""
        return self.folder / "data.sqlite"

    def assertion(self) -> str:
        """Return a fresh assertion of this device for its site."""
        return self.identity.assertion(self.enrolment.device, self.enrolment.site)
