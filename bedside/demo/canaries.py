"""A search of everything a run wrote for content that must not be there.

Canaries are the texts and values that went into requests and came out of models. Texts are looked for
raw, values as decimal text in the usual formats and as the bytes of float16, float32 and float64 in
both byte orders; each of these also in base64 (at every alignment, both alphabets) and in hexadecimal,
and inside what is compressed, in what is compressed twice too.
"""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from bedside.demo.haystack import Needles, contents

# Fewer digits would turn up by chance: in times, hashes, durations.
TEXT_DIGITS: Final = 7
# Bytes of values that are neighbours; fewer would turn up by chance.
RAW_BYTES: Final = 8
RAW_BYTES_MIN: Final = 6

_FIXED_DECIMALS: Final = range(1, 8)
_EXPONENT_DECIMALS: Final = range(6, 9)
_ALIGNMENTS: Final = 3
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class Finding(Struct, frozen=True):
    """A canary that was found: where, and what kind; never the canary itself."""

    path: Path
    kind: str


class Canaries:
    """What must not be found."""

    def __init__(self) -> None:
        self._needles: dict[bytes, str] = {}
        self._compiled: tuple[int, Needles] | None = None

    @property
    def count(self) -> int:
        """How many byte strings are looked for."""
        return len(self._needles)

    def add_text(self, *texts: str) -> None:
        """Remember identifiers and names."""
        for text in texts:
            self._add(text.encode(), "text")

    def add_values(self, values: npt.NDArray[Any]) -> None:
        """Remember float values, as decimal text and as the bytes of neighbours."""
        flat = np.asarray(values, dtype=np.float32).ravel()
        for value in flat:
            for text in _decimal(float(value), str(value)):
                if sum(character.isdigit() for character in text.lstrip("-0.")) >= TEXT_DIGITS:
                    self._needles[text[: TEXT_DIGITS + 3].encode()] = "value as text"
        for form in ("<f2", "<f4", "<f8"):
            self._add_bytes(flat, form)

    def _add_bytes(self, flat: npt.NDArray[np.float32], form: str) -> None:
        with np.errstate(over="ignore"):
            laid = flat.astype(form)
        width = min(RAW_BYTES // laid.itemsize, len(flat))
        if width * laid.itemsize < RAW_BYTES_MIN:
            return
        for start in range(len(flat) - width + 1):
            run = laid[start : start + width]
            # Zeros, and what is too large for float16, are no sign of anything.
            if run.all() and np.isfinite(run).all():
                self._add(run.tobytes(), f"value as {run.dtype.name}")
                self._add(run.byteswap().tobytes(), f"value as {run.dtype.name}, big-endian")

    def matches(self, data: bytes) -> Iterator[str]:
        """Yield the kind of each canary in `data`."""
        if self._compiled is None or self._compiled[0] != len(self._needles):
            self._compiled = len(self._needles), Needles(self._needles)
        for content in contents(data):
            yield from self._compiled[1].found(content)

    def search(self, files: Iterable[Path]) -> Iterator[Finding]:
        """Yield each file that holds a canary, once for each kind."""
        for path in files:
            for kind in sorted(set(self.matches(path.read_bytes()))):
                yield Finding(path, kind)

    def _add(self, raw: bytes, kind: str) -> None:
        self._needles[raw] = kind
        self._needles[raw.hex().encode()] = f"{kind}, in hexadecimal"
        self._needles[raw.hex().upper().encode()] = f"{kind}, in hexadecimal"
        for offset in range(_ALIGNMENTS):
            # Only the characters that no neighbouring byte can change.
            encoded = base64.b64encode(b"\0" * offset + raw)
            start = -(-offset * 8 // 6)
            end = (offset + len(raw)) * 8 // 6
            for form in (encoded, encoded.translate(_URL_SAFE)):
                self._needles[form[start:end]] = f"{kind}, in base64"


def written_files(root: Path, excluded: Iterable[Path] = ()) -> list[Path]:
    """Return every file below `root`, but those in `excluded`."""
    skipped = set(excluded)
    return sorted(path for path in root.rglob("*") if path.is_file() and path not in skipped)


def _decimal(value: float, shortest: str) -> set[str]:
    """Return `value` in the formats that numbers are usually written in."""
    fixed = {f"{value:.{decimals}f}" for decimals in _FIXED_DECIMALS}
    exponent = {f"{value:.{decimals}e}" for decimals in _EXPONENT_DECIMALS}
    return {repr(value), shortest, f"{value:.7g}"} | fixed | exponent
