"""The releases that the coordinator serves: verified, recorded, and never replaced.

Whoever holds the release key publishes into the folder. The coordinator notices a release when it is
first looked at, has the audit log take it, and keeps its digest: another file under the same version
is refused from then on, even if it is signed.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from audit.records import ReleaseRecord
from coordinator.errors import ReleaseError
from coordinator.recording import Record
from coordinator.releases import Release, ReleaseFolder
from coordinator.store import PublishedRelease, Store


class Catalogue:
    """Looks releases up for devices and jobs."""

    def __init__(self, folder: ReleaseFolder, store: Store, record: Record) -> None:
        self._folder = folder
        self._store = store
        self._record = record
        self._noticing = asyncio.Lock()

    async def list(self) -> list[Release]:
        """Return every release, by model and version.

        Raises:
            ReleaseError: naming the first that must not be served.
        """
        releases = await asyncio.to_thread(self._folder.list)
        for release in releases:
            await self._notice(release)
        return releases

    async def find(self, model: str, version: str | None) -> tuple[Release, Path]:
        """Return a release, the newest if no version is named, and its folder.

        Raises:
            ReleaseError: if there is none, or it must not be served.
        """
        release, folder = await asyncio.to_thread(self._folder.find, model, version)
        await self._notice(release)
        return release, folder

    async def _notice(self, release: Release) -> None:
        async with self._noticing, self._store.session() as session:
            known = await session.get(PublishedRelease, (release.model, release.version))
            if known is None:
                await self._record(
                    ReleaseRecord(
                        time=datetime.now(UTC),
                        id=uuid4(),
                        model=release.model,
                        model_version=release.version,
                        model_digest=release.digest,
                    )
                )
                session.add(
                    PublishedRelease(
                        model=release.model, version=release.version, digest=release.digest
                    )
                )
            elif known.digest != release.digest:
                raise ReleaseError(
                    f"{release.model} version {release.version} is not the file first published "
                    "under that version; publish a higher version"
                )
