"""A site's policy bundle: published by its approvers, or made of its configuration where it has none.

<data>/policy/bundle.json            what is published
<data>/policy/published/<n>.json     every version that was
<data>/policy/drafts/<digest>.json   what waits for signatures
<data>/policy/shadow.json            the candidate that decides beside what is in force, if any
<data>/policy/seen/<component>.json  what each component last took into force: it never goes back
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import structs

from bedside.config import Config
from bedside.errors import BedsideError
from coordinator import PolicyFolder
from policies import (
    Approvers,
    ApproversInvalid,
    Bundle,
    BundleInvalid,
    ModelAccess,
    PolicyError,
    build_bundle,
    gather,
    read_draft,
    sign,
    with_sources,
    write_bundle,
)
from policies.pack import MANIFEST, PACKS

# What the one key of a site without approvers is called.
SITE_KEY: Final = "site"


class SiteBundles:
    """The bundles in the data folder of one site."""

    def __init__(self, config: Config, folder: Path, key: Callable[[], Ed25519PrivateKey]) -> None:
        self.folder = PolicyFolder(folder)
        self._config = config
        self._key = key

    @property
    def embedded(self) -> bool:
        """Whether nobody approves: the site's own key then signs what its configuration says."""
        return not self._config.policy.approvers

    def approvers(self) -> Approvers:
        """Return who approves this site's policies.

        Raises:
            BedsideError: if they could never approve anything.
        """
        entry = self._config.policy
        if self.embedded:
            keys, threshold = {SITE_KEY: self._key().public_key()}, 1
        else:
            keys = {
                name: Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
                for name, key in entry.approvers.items()
            }
            threshold = entry.threshold
        try:
            return Approvers(site=self._config.site, keys=keys, threshold=threshold)
        except ApproversInvalid as error:
            raise BedsideError(f"[policy]: {error}") from error

    def current(self) -> Bundle:
        """Return what is published; without approvers, what would be at the next start.

        Raises:
            BedsideError: if nothing is, or it is not to be trusted, or the packs do not validate.
        """
        try:
            return self._current()[0]
        except PolicyError as error:
            raise BedsideError(f"policy: {error}") from error

    def considered(self) -> tuple[Bundle, bool]:
        """Return the bundle that questions are about, and whether it is in force or will be at a start.

        Where approvers have published nothing, that is what the configuration describes.

        Raises:
            BedsideError: if what is published is not to be trusted, or the packs do not validate.
        """
        if self.embedded or self.folder.bundle.is_file():
            return self.current(), True
        try:
            return self.drafted(1), False
        except PolicyError as error:
            raise BedsideError(f"policy: {error}") from error

    def asked(self, draft: Path | None) -> tuple[Bundle, bool]:
        """Return the draft in a file, signed or not, or else what `considered` does.

        Raises:
            PolicyError: if the file holds none.
            BedsideError: likewise.
        """
        return self.considered() if draft is None else (read_draft(draft.read_bytes()), True)

    def settle(self) -> bytes | None:
        """Return what is published, for a component that starts; None where there is nothing.

        Without approvers, what the configuration says is signed with the site's key and published
        first, where it differs.

        Raises:
            BedsideError: if what is published is not to be trusted, or the packs do not validate.
        """
        path = self.folder.bundle
        if not self.embedded:
            return path.read_bytes() if path.is_file() else None
        try:
            bundle, published = self._current()
            if not published:
                write_bundle(path, sign(bundle, [self._key()]))
        except PolicyError as error:
            raise BedsideError(f"policy: {error}") from error
        return path.read_bytes()

    @contextmanager
    def packs(self) -> Iterator[Path]:
        """Give a folder with the packs that the configuration names, for as long as it is looked at.

        Raises:
            BedsideError: if the site's folder of packs is not there, or has a pack that is named like
                one that ships: which of the two decides should never be a question.
        """
        own = self._config.policy.folder
        if own is None:
            yield PACKS
            return
        if not own.is_dir():
            raise BedsideError(f"[policy]: there is no folder {own}")
        for shipped in sorted(path.name for path in PACKS.iterdir()):
            if (own / shipped / MANIFEST).is_file():
                raise BedsideError(
                    f"[policy]: {own / shipped} is named like a pack that ships; name it otherwise"
                )
        with TemporaryDirectory(prefix="bedside-packs-") as root:
            gather(self._config.policy.packs, own, Path(root))
            yield Path(root)

    def drafted(self, version: int, created: datetime | None = None) -> Bundle:
        """Return the bundle that the configuration describes.

        One that was `created` by somebody carries its packs' other files, to be tested by who approves.

        Raises:
            BundleInvalid: if the packs do not validate.
        """
        models = {
            name: ModelAccess(
                roles=entry.roles,
                purposes=entry.purposes,
                data_classes=entry.data_classes,
                risk=entry.risk,
                necessary_outputs=entry.necessary_outputs,
            )
            for name, entry in self._config.models.items()
        }
        with self.packs() as root:
            bundle = build_bundle(
                self._config.policy.packs,
                name=self._config.site,
                version=version,
                models=models,
                residency=self._config.policy.residency,
                root=root,
            )
            if created is None:
                return bundle
            return structs.replace(with_sources(bundle, root), created=created)

    def _current(self) -> tuple[Bundle, bool]:
        """Return the bundle, and whether it is what is published."""
        path = self.folder.bundle
        published = self._published(path.read_bytes()) if path.is_file() else None
        if published is not None and (not self.embedded or published.created is not None):
            return published, True
        if not self.embedded:
            raise BedsideError(
                "no policies are published yet: see `bedside policy draft`, `sign` and `publish`"
            )
        bundle = self.drafted(self.folder.highest() or 1)
        if published is not None and bundle.digest() == published.digest():
            return published, True
        return self.drafted(self.folder.highest() + 1), False

    def _published(self, document: bytes) -> Bundle | None:
        """Return the signed bundle; None where another release's can be made again."""
        try:
            return self.approvers().verify(document)
        except BundleInvalid:
            if self.embedded:
                return None
            raise
