"""The breast-cancer data of scikit-learn (Wolberg et al. 1995): 569 real, anonymous patients.

Each gets an invented name and record number, so that the demo has identifiers that must never show up
anywhere. The positive class is malignant.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedShuffleSplit

FEATURES: Final = 30
DEVICES: Final = 4
DEVICE_ROWS: Final = 35
TEST_ROWS: Final = 109

_GIVEN: Final = ("Amara", "Bruno", "Chidi", "Dagny", "Elif", "Farid", "Greta", "Hana", "Ivo", "Jun")
_FAMILY: Final = ("Abendroth", "Brightwater", "Castellan", "Dunmore", "Eisenhardt", "Fairweather")
_MALIGNANT_IN_SOURCE: Final = 0


class Patient(Struct, frozen=True):
    """One person: `features` is float32 [30], `label` 1 for malignant."""

    subject: str
    name: str
    jurisdiction: str
    features: npt.NDArray[np.float32]
    label: int


class Cohorts(Struct, frozen=True, kw_only=True):
    """Who holds which patients; no patient is in two places."""

    hospitals: dict[str, tuple[Patient, ...]]
    devices: tuple[tuple[Patient, ...], ...]
    test: tuple[Patient, ...]


def split(seed: int = 7) -> Cohorts:
    """Return the patients of two hospitals (US-CA, DE), of four devices, and a held-out test set.

    Each part has malignant and benign cases in the proportion of the whole.
    """
    source = load_breast_cancer()
    features = source.data.astype(np.float32)
    labels = (source.target == _MALIGNANT_IN_SOURCE).astype(int)
    rest = np.arange(len(labels))
    parts: list[npt.NDArray[np.int64]] = []
    for size in (TEST_ROWS, *[DEVICE_ROWS] * DEVICES):
        rest, part = _take(rest, labels, size, seed)
        parts.append(part)
    american, german = _take(rest, labels, len(rest) // 3, seed)
    test, *devices = parts

    def patients(indices: npt.NDArray[np.int64], jurisdiction: str) -> tuple[Patient, ...]:
        return tuple(
            _patient(int(index), jurisdiction, features[index], int(labels[index]), seed)
            for index in indices
        )

    return Cohorts(
        hospitals={"US-CA": patients(american, "US-CA"), "DE": patients(german, "DE")},
        devices=tuple(patients(part, "US-CA") for part in devices),
        test=patients(test, "US-CA"),
    )


def matrix(
    patients: Sequence[Patient],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return features float32 [n, 30] and labels int64 [n]."""
    return (
        np.stack([patient.features for patient in patients]),
        np.array([patient.label for patient in patients], dtype=np.int64),
    )


def _take(
    indices: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], size: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=size, random_state=seed)
    kept, taken = next(splitter.split(indices, labels[indices]))
    return indices[kept], indices[taken]


def _patient(
    index: int, jurisdiction: str, features: npt.NDArray[np.float32], label: int, seed: int
) -> Patient:
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    name = f"{_GIVEN[digest[0] % len(_GIVEN)]} {_FAMILY[digest[1] % len(_FAMILY)]}-{digest[2:4].hex()}"
    return Patient(f"mrn-{digest[4:10].hex()}", name, jurisdiction, features, label)
