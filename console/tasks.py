"""Long work, one piece at a time and beside the pages: reports, replays, differences between bundles.

It is kept in memory only: what was under way when the console stops is asked for again.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from audit import AuditError
from console.errors import Busy, ConsoleError
from coordinator import CoordinatorError
from policies import PolicyError

WAITING_MAX: Final = 8
KEPT_MAX: Final = 64

logger = logging.getLogger(__name__)


class State(StrEnum):
    """Where a piece of work stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Task:
    """One piece of work; `owner` alone is shown it, and `record` says that it was asked for."""

    def __init__(self, owner: str, kind: str, title: str, record: str) -> None:
        self.id = secrets.token_hex(8)
        self.owner = owner
        self.kind = kind
        self.title = title
        self.record = record
        self.asked = datetime.now(UTC)
        self.state = State.WAITING
        self.step = "waiting for its turn"
        self.share = 0.0
        self.problem: str | None = None
        self.result: Any = None

    def progress(self, step: str, share: float) -> None:
        """Say what is being done and how much of the whole is; may be called from a thread."""
        self.step, self.share = step, share

    @property
    def percent(self) -> int:
        """How much is done."""
        return 100 if self.state is State.DONE else int(100 * self.share)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in (State.DONE, State.FAILED)


Work = Callable[[Task], Awaitable[Any]]


class Tasks:
    """Does one piece of work after the other; a full queue refuses."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._queue: asyncio.Queue[tuple[Task, Work]] = asyncio.Queue(WAITING_MAX)
        self._runner: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on in the background."""
        self._runner = asyncio.create_task(self._run(), name="console-tasks")

    async def close(self) -> None:
        """Stop; what is under way is given up."""
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner

    def submit(self, task: Task, work: Work) -> None:
        """Have `work` done in its turn.

        Raises:
            Busy: if too much waits.
        """
        try:
            self._queue.put_nowait((task, work))
        except asyncio.QueueFull as error:
            raise Busy("too much work waits already; try again in a minute") from error
        self._tasks[task.id] = task
        while len(self._tasks) > KEPT_MAX:
            self._tasks.pop(next(iter(self._tasks)))

    def find(self, owner: str, task_id: str) -> Task | None:
        """Return the owner's task of this name."""
        task = self._tasks.get(task_id)
        return task if task is not None and task.owner == owner else None

    def of(self, owner: str, kind: str) -> list[Task]:
        """Return the owner's tasks of one kind, newest first."""
        own = [task for task in self._tasks.values() if task.owner == owner and task.kind == kind]
        return own[::-1]

    async def _run(self) -> None:
        while True:
            task, work = await self._queue.get()
            task.state, task.step = State.RUNNING, "starting"
            try:
                task.result = await work(task)
                task.state = State.DONE
            except (AuditError, PolicyError, CoordinatorError, ConsoleError) as error:
                task.problem = str(error)
                task.state = State.FAILED
            except Exception as error:  # noqa: BLE001 one piece of work must not end all others
                # The message may quote what somebody typed; the kind does not.
                logger.error("a task failed: %s", type(error))  # noqa: TRY400 likewise
                task.problem = "It failed for a reason that the console's log names."
                task.state = State.FAILED
