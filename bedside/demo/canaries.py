"""A search of everything a run wrote for content that must not be there.

Canaries are the texts and values that went into requests and came out of models. Each is looked for
raw, in base64 (at every alignment) and in hexadecimal, also inside what is compressed.
"""

import base64
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import ahocorasick
import numpy as np
import numpy.typing as npt
from msgspec import Struct

# Fewer digits would turn up by chance: in times, hashes, durations.
TEXT_DIGITS: Final = 7
RAW_FLOATS: Final = 2

_DEFLATED = re.compile(rb"stream\r?\n|\x1f\x8b\x08")
_ALIGNMENTS: Final = 3
# The automaton takes text; in this encoding each byte is one character.
_BYTE_FOR_BYTE: Final = "latin-1"


class Finding(Struct, frozen=True):
    """A canary that was found: where, and what kind; never the canary itself."""

    path: Path
    kind: str


class Canaries:
    """What must not be found."""

    def __init__(self) -> None:
        self._needles: dict[bytes, str] = {}
        self._compiled: tuple[int, ahocorasick.Automaton] | None = None

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
            for text in {repr(float(value)), str(value)}:
                if sum(character.isdigit() for character in text.lstrip("0.")) >= TEXT_DIGITS:
                    self._needles[text[: TEXT_DIGITS + 3].encode()] = "value as text"
        for start in range(len(flat) - RAW_FLOATS + 1):
            pair = flat[start : start + RAW_FLOATS]
            if pair.all():
                self._add(pair.tobytes(), "value as bytes")

    def matches(self, data: bytes) -> Iterator[str]:
        """Yield the kind of each canary in `data`."""
        automaton = self._automaton()
        if automaton is None:
            return
        for content in _contents(data):
            yield from (kind for _, kind in automaton.iter(content.decode(_BYTE_FOR_BYTE)))

    def search(self, files: Iterable[Path]) -> Iterator[Finding]:
        """Yield each file that holds a canary, once for each kind."""
        for path in files:
            for kind in sorted(set(self.matches(path.read_bytes()))):
                yield Finding(path, kind)

    def _automaton(self) -> ahocorasick.Automaton | None:
        """Return what finds all needles in one pass (Aho and Corasick 1975)."""
        if not self._needles:
            return None
        if self._compiled is None or self._compiled[0] != len(self._needles):
            automaton = ahocorasick.Automaton()
            for needle, kind in self._needles.items():
                automaton.add_word(needle.decode(_BYTE_FOR_BYTE), kind)
            automaton.make_automaton()
            self._compiled = len(self._needles), automaton
        return self._compiled[1]

    def _add(self, raw: bytes, kind: str) -> None:
        self._needles[raw] = kind
        self._needles[raw.hex().encode()] = f"{kind}, in hexadecimal"
        for offset in range(_ALIGNMENTS):
            # Only the characters that no neighbouring byte can change.
            encoded = base64.b64encode(b"\0" * offset + raw)
            start = -(-offset * 8 // 6)
            end = (offset + len(raw)) * 8 // 6
            self._needles[encoded[start:end]] = f"{kind}, in base64"


def written_files(root: Path, excluded: Iterable[Path] = ()) -> list[Path]:
    """Return every file below `root`, but those in `excluded`."""
    skipped = set(excluded)
    return sorted(path for path in root.rglob("*") if path.is_file() and path not in skipped)


def _contents(data: bytes) -> Iterator[bytes]:
    """Yield the data itself, and what is compressed in it (PDF streams, gzip members)."""
    yield data
    for match in _DEFLATED.finditer(data):
        gzip = match.group().startswith(b"\x1f")
        start = match.start() if gzip else match.end()
        try:
            yield zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data[start:])
        except zlib.error:
            continue
