"""Finds a policy bundle by its digest, among those that are, were or may come into force here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coordinator import PolicyFolder
from policies import Bundle, PolicyError, read_draft, version_and_digest

KEPT: Final = 8


class BundleShelf:
    """Looks in what is published, what was, what each component last took into force, and in drafts.

    Who signed a bundle is not asked: its digest is the one that a record names, which is what counts.
    """

    def __init__(self, folder: PolicyFolder) -> None:
        self._folder = folder
        self._found: dict[str, Bundle] = {}

    def find(self, digest: str) -> Bundle | None:
        """Return the bundle with this digest; blocking."""
        known = self._found.get(digest)
        if known is not None:
            return known
        for path in self._paths():
            try:
                document = path.read_bytes()
                if version_and_digest(document)[1] != digest:
                    continue
                bundle = read_draft(document)
            except (PolicyError, FileNotFoundError):
                # A damaged file is no bundle, and one may be replaced meanwhile.
                continue
            if len(self._found) >= KEPT:
                self._found.pop(next(iter(self._found)))
            self._found[digest] = bundle
            return bundle
        return None

    def _paths(self) -> Iterator[Path]:
        yield self._folder.bundle
        yield from sorted((self._folder.root / "published").glob("*.json"), reverse=True)
        for _, path in self._folder.components():
            yield path
        yield from sorted(self._folder.drafts.glob("*.json"))
