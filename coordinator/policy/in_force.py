"""What the coordinator itself decides by, and gives to gateways: the newest published bundle."""

import asyncio
import contextlib
import logging
from typing import Final

from audit import LogUnavailable
from audit.records import PolicyStep
from audit.steps import step_record
from coordinator.policy.folder import PolicyFolder
from coordinator.recording import Record
from policies import BundleKeeper, Load, PolicyError, WatchedFile

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0


class InForce:
    """Takes into force what is published; what is not to be trusted changes nothing."""

    def __init__(self, keeper: BundleKeeper, folder: PolicyFolder, record: Record) -> None:
        self.engine = keeper.engine
        self._keeper = keeper
        self._file = WatchedFile(folder.bundle)
        self._record_step = record
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def document(self) -> bytes:
        """The signed bundle in force."""
        return self._keeper.document

    async def start(self) -> None:
        """Record how this run began, look once, then go on in the background.

        Raises:
            LogUnavailable: if going over to another bundle cannot be recorded.
        """
        await self._keeper.start(self._record)
        await self.refresh()
        self._task = asyncio.create_task(self._run(), name="policies-in-force")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Take over what was published since the last look."""
        async with self._looking:
            try:
                document = await asyncio.to_thread(self._file.read)
                if document:
                    await self._keeper.offer(document, self._record)
            except (OSError, PolicyError, LogUnavailable) as error:
                logger.warning("policies not refreshed: %s", type(error))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.refresh()

    async def _record(self, load: Load) -> None:
        await self._record_step(
            step_record(
                PolicyStep.LOAD,
                problem=load.problem,
                bundle=load.bundle,
                version=load.version,
                approvers=load.approvers,
            )
        )
