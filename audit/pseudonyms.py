"""Keyed pseudonyms: the only form in which a subject is ever stored.

The key is puncturable (Goldreich, Goldwasser and Micali 1986; Boneh and Waters 2013): it is the root of
a tree of seeds in which each child is a hash of its parent, and a person stands at a leaf. To destroy
one person's key, the seeds above that leaf give way to those beside its path. All other pseudonyms
stay as they are; that one can be computed by nobody any more, whoever holds key and identifier.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final

from audit.errors import PseudonymKeyError

KEY_BYTES: Final = 32
RELOAD_S: Final = 1.0

# 24 steps of 16 ways: 2**96 leaves, so that two people never share one, and 16 KB for a destroyed key.
DEPTH: Final = 24
WAYS: Final = 16

_MAGIC: Final = b"bedside pseudonyms 1\n"
_NIBBLES: Final = bytes.maketrans(b"0123456789abcdef", bytes(range(WAYS)))
_CHILDREN: Final = tuple(bytes([child]) for child in range(WAYS))


class PseudonymKey:
    """A key from which some people's may have been cut out; a value that is never changed."""

    def __init__(self, seeds: dict[bytes, bytes]) -> None:
        self._seeds = seeds

    @classmethod
    def from_bytes(cls, data: bytes) -> "PseudonymKey":
        """Return the key in `data`: 32 random bytes, or what `to_bytes` returned.

        Raises:
            PseudonymKeyError: if it is neither.
        """
        if len(data) == KEY_BYTES:
            return cls({b"": data})
        if not data.startswith(_MAGIC):
            raise PseudonymKeyError(
                f"a pseudonym key has {KEY_BYTES} bytes, or says that some of it was destroyed"
            )
        seeds: dict[bytes, bytes] = {}
        place = len(_MAGIC)
        while place < len(data):
            path = data[place + 1 : place + 1 + data[place]]
            seed = data[place + 1 + len(path) : place + 1 + len(path) + KEY_BYTES]
            if len(path) != data[place] or len(seed) != KEY_BYTES:
                raise PseudonymKeyError("the pseudonym key is cut short")
            seeds[path] = seed
            place += 1 + len(path) + KEY_BYTES
        return cls(seeds)

    def to_bytes(self) -> bytes:
        """Return the key as it is stored."""
        if b"" in self._seeds:
            return self._seeds[b""]
        parts = (bytes([len(path)]) + path + seed for path, seed in sorted(self._seeds.items()))
        return _MAGIC + b"".join(parts)

    def pseudonym(self, subject: str) -> str:
        """Return the pseudonym of `subject`: 64 hexadecimal digits.

        Whoever comes back after their key was destroyed gets another, which nothing links to the first.
        """
        name = subject.encode()
        generation = 0
        while (seed := self._leaf(_path(name, generation))) is None:
            generation += 1
        return hmac.digest(seed, name, "sha256").hex()

    def without(self, subject: str) -> "PseudonymKey":
        """Return the key from which the present pseudonym of `subject` cannot be computed."""
        name = subject.encode()
        generation = 0
        while self._leaf(path := _path(name, generation)) is None:
            generation += 1
        seeds = dict(self._seeds)
        start = next(n for n in range(DEPTH + 1) if path[:n] in seeds)
        seed = seeds.pop(path[:start])
        for step in range(start, DEPTH):
            for child in range(WAYS):
                if child != path[step]:
                    seeds[path[:step] + _CHILDREN[child]] = _child(seed, child)
            seed = _child(seed, path[step])
        return PseudonymKey(seeds)

    def _leaf(self, path: bytes) -> bytes | None:
        for start in range(DEPTH + 1):
            seed = self._seeds.get(path[:start])
            if seed is not None:
                for step in path[start:]:
                    seed = _child(seed, step)
                return seed
        return None


class Pseudonymizer:
    """Turns a subject's identifier into a pseudonym under a key of the organisation."""

    def __init__(
        self, key: bytes | PseudonymKey, *, reload: Callable[[], bytes | None] | None = None
    ) -> None:
        """Hold `key`; `reload` is asked every second whether it was replaced, and returns it then.

        Raises:
            PseudonymKeyError: if the key is none.
        """
        self._key = PseudonymKey.from_bytes(key) if isinstance(key, bytes) else key
        self._reload = reload
        self._asked = time.monotonic()

    def pseudonym(self, subject: str) -> str:
        """Return the pseudonym of `subject`: 64 hexadecimal digits."""
        if self._reload is not None and time.monotonic() - self._asked > RELOAD_S:
            self._asked = time.monotonic()
            replaced = self._reload()
            if replaced is not None:
                self._key = PseudonymKey.from_bytes(replaced)
        return self._key.pseudonym(subject)


def _path(name: bytes, generation: int) -> bytes:
    digest = hashlib.sha256(generation.to_bytes(8, "big") + name).digest()
    return digest[: DEPTH // 2].hex().encode().translate(_NIBBLES)


def _child(seed: bytes, child: int) -> bytes:
    return hashlib.sha256(seed + _CHILDREN[child]).digest()
