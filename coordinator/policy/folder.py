"""Where a site's policy bundles are: what is published, what was, and what waits for signatures."""

from collections.abc import Iterator
from pathlib import Path

from policies import PolicyError, version_and_digest


class PolicyFolder:
    """The files of one site's policies."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bundle = root / "bundle.json"
        self.shadow = root / "shadow.json"
        self.drafts = root / "drafts"

    def published(self, version: int) -> Path:
        """Where the published bundle of `version` is kept."""
        return self.root / "published" / f"{version}.json"

    def seen(self, component: str) -> Path:
        """Where `component` keeps what it last took into force."""
        return self.root / "seen" / f"{component}.json"

    def draft(self, digest: str) -> Path:
        """Where the draft with this digest waits."""
        return self.drafts / f"{digest}.json"

    def components(self) -> Iterator[tuple[str, Path]]:
        """Yield every component that took a bundle into force, and its copy."""
        for path in sorted((self.root / "seen").glob("*.json")):
            yield path.stem, path

    def highest(self) -> int:
        """Return the highest version of any bundle here, whoever signed it; 0 where there is none."""
        files = [self.bundle, *(path for _, path in self.components())]
        files += (self.root / "published").glob("*.json")
        return max((_version_in(path) for path in files if path.is_file()), default=0)


def _version_in(path: Path) -> int:
    try:
        return version_and_digest(path.read_bytes())[0]
    except PolicyError:
        # A damaged file names no version; whoever uses it says so.
        return 0
