"""Keeps an engine on the newest bundle that a site's approvers signed, and never lets it go back.

Every bundle that comes into force is first copied, durably, to a file of the component's own. What it
holds is the highest version that was seen: an older bundle is refused after a restart too, and the copy
serves where nothing else can be had.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from policies.approval import Approvers, read_draft
from policies.bundle import Bundle, version_and_digest, write_bundle
from policies.engine import Engine
from policies.errors import (
    BundleForeign,
    BundleInvalid,
    BundleOutdated,
    BundleUnderSigned,
    BundleUntrusted,
    PolicyError,
)

logger = logging.getLogger(__name__)


class LoadProblem(StrEnum):
    """Why a bundle was not taken into force."""

    ANOTHER_SITE = "another-site"
    INVALID = "invalid"
    UNDER_SIGNED = "under-signed"
    UNTRUSTED = "untrusted"
    VERSION_OUTDATED = "version-outdated"


class Load(Struct, frozen=True, kw_only=True):
    """One bundle that was taken into force, or refused; of an untrusted one nothing is repeated."""

    bundle: str | None = None
    version: int | None = None
    approvers: tuple[str, ...] = ()
    problem: LoadProblem | None = None


OnLoad = Callable[[Load], Awaitable[None]]


class BundleKeeper:
    """Offers bundles to an engine; opened with `BundleKeeper.open`, used on one event loop.

    `refusals` counts the different documents that were refused, by their problem.
    """

    def __init__(self, engine: Engine, approvers: Approvers, copy: Path, document: bytes) -> None:
        self.engine = engine
        self.refusals: dict[LoadProblem, int] = {}
        self._approvers = approvers
        self._copy = copy
        self._document = document
        self._pending: Load | None = None
        self._looked_at = hashlib.sha256(document).digest()

    @classmethod
    def open(cls, approvers: Approvers, copy: Path, document: bytes | None) -> "BundleKeeper":
        """Begin with the newer of `document` and the copy; blocking.

        Raises:
            BundleOutdated: if `document` is older than what was in force before, and that is not there
                any more.
            BundleUntrusted: if neither is signed by enough approvers, or the copy is damaged.
            BundleInvalid: if what is signed does not validate.
        """
        kept = copy.read_bytes() if copy.is_file() else None
        if document is None and kept is None:
            raise BundleUntrusted(
                "no policies are published yet; draft, sign and publish a bundle first"
            )
        if kept is None:
            return cls._begin(approvers, copy, document or b"")
        highest, digest = version_and_digest(kept)
        if document is None or document == kept:
            return cls(Engine(approvers.verify(kept)), approvers, copy, kept)
        try:
            offered = approvers.verify(document)
            _check_version(offered, highest, digest)
        except PolicyError as error:
            try:
                trusted = approvers.verify(kept)
            except PolicyError:
                raise error from None
            logger.warning("policy bundle refused: %s", error)
            keeper = cls(Engine(trusted), approvers, copy, kept)
            keeper._pending = keeper._refused(document, error)
            keeper._looked_at = hashlib.sha256(document).digest()
            return keeper
        if offered.digest() == digest:
            write_bundle(copy, document)
            return cls(Engine(offered), approvers, copy, document)
        # Its record comes first, and there is no log yet: `start` writes the copy.
        keeper = cls(Engine(offered), approvers, copy, document)
        keeper._pending = keeper._loaded(offered)
        return keeper

    @classmethod
    def _begin(cls, approvers: Approvers, copy: Path, document: bytes) -> "BundleKeeper":
        keeper = cls(Engine(approvers.verify(document)), approvers, copy, document)
        write_bundle(copy, document)
        return keeper

    @property
    def document(self) -> bytes:
        """The signed bundle in force, as it came."""
        return self._document

    async def start(self, on_load: OnLoad) -> None:
        """Have recorded what `open` found out.

        Raises:
            Whatever `on_load` raises.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            await on_load(pending)
            if pending.problem is None:
                await asyncio.to_thread(write_bundle, self._copy, self._document)

    async def offer(self, document: bytes, on_load: OnLoad) -> bool:
        """Take `document` into force if it is newer; return whether it was.

        `on_load` is awaited before a bundle takes effect, and once for each document that is refused;
        if it raises, nothing changes and the same document can be offered again.

        Raises:
            OSError: if the copy cannot be written; what was in force stays.
            Whatever `on_load` raises.
        """
        seen = hashlib.sha256(document).digest()
        if seen == self._looked_at:
            return False
        try:
            loaded = await asyncio.to_thread(self._examine, document)
        except PolicyError as error:
            logger.warning("policy bundle refused: %s", error)
            await on_load(self._refused(document, error))
            self._looked_at = seen
            return False
        if loaded is not None:
            bundle, engine = loaded
            await on_load(self._loaded(bundle, document))
            await asyncio.to_thread(write_bundle, self._copy, document)
            self.engine.adopt(engine)
            logger.info("policy bundle version %d is in force", bundle.version)
        self._document = document
        self._looked_at = seen
        return loaded is not None

    def _examine(self, document: bytes) -> tuple[Bundle, Engine] | None:
        bundle = self._approvers.verify(document)
        _check_version(bundle, self.engine.bundle.version, self.engine.bundle_digest)
        if bundle.digest() == self.engine.bundle_digest:
            return None
        return bundle, Engine(bundle)

    def _loaded(self, bundle: Bundle, document: bytes | None = None) -> Load:
        signed = self._document if document is None else document
        return Load(
            bundle=bundle.digest(), version=bundle.version, approvers=self._approvers.names_on(signed)
        )

    def _refused(self, document: bytes, error: PolicyError) -> Load:
        problem = _problem_of(error)
        self.refusals[problem] = self.refusals.get(problem, 0) + 1
        if problem not in (LoadProblem.VERSION_OUTDATED, LoadProblem.UNDER_SIGNED):
            return Load(problem=problem)
        bundle = read_draft(document)
        names = self._approvers.names_on(document)
        return Load(bundle=bundle.digest(), version=bundle.version, approvers=names, problem=problem)


def _check_version(bundle: Bundle, highest: int, digest: str) -> None:
    if bundle.version < highest:
        raise BundleOutdated(
            f"bundle version {bundle.version} is older than {highest}, which was in force"
        )
    if bundle.version == highest and bundle.digest() != digest:
        raise BundleOutdated(
            f"a different bundle of version {highest} was in force; publish this one as {highest + 1}"
        )


def _problem_of(error: PolicyError) -> LoadProblem:
    match error:
        case BundleOutdated():
            return LoadProblem.VERSION_OUTDATED
        case BundleUnderSigned():
            return LoadProblem.UNDER_SIGNED
        case BundleForeign():
            return LoadProblem.ANOTHER_SITE
        case BundleInvalid():
            return LoadProblem.INVALID
        case _:
            return LoadProblem.UNTRUSTED
