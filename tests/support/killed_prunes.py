"""Prunes copies of a log, each in a child that is killed at its next step: `... <template> <folder>`.

A step is what changes the disk: a sync, a removal or a renaming. The first child dies before the first
of them, the second before the second, until one comes through. Copies are left as `<folder>/<n>`, and
`killed` or `done` is printed for each.
"""

import asyncio
import os
import shutil
import signal
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from audit import Log
from audit import wal as wal_module
from audit.retention import PruneOrder
from support.log_writers import KEY, ORIGIN, make_everything_frequent

MINIMUM = 768
ORDER = PruneOrder(
    index=MINIMUM, newest=datetime(2019, 1, 1, tzinfo=UTC), decision="clinic/retention#0"
)


def die_at(step: int) -> None:
    """Let this process kill itself in place of its `step`-th change of the disk."""
    steps = count()

    def counted(function):
        def called(*arguments, **options):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return called

    os.fsync = counted(os.fsync)
    shutil.rmtree = counted(shutil.rmtree)
    for name in ("unlink", "rename", "replace", "rmdir"):
        setattr(Path, name, counted(getattr(Path, name)))


async def prune(folder: Path, step: int) -> None:
    log = await Log.open(folder, origin=ORIGIN, key=KEY)
    die_at(step)
    await log.prune(ORDER)
    os._exit(0)


def main() -> None:
    make_everything_frequent()
    wal_module.SEGMENTS_KEPT = 16
    template, copies = map(Path, sys.argv[1:])
    for step in count():
        folder = copies / str(step)
        shutil.copytree(template, folder)
        child = os.fork()
        if not child:
            asyncio.run(prune(folder, step))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            os.write(1, b"killed\n")
        else:
            os.write(1, b"done\n" if status == 0 else b"failed\n")
            break


if __name__ == "__main__":
    main()
