"""Fills a file system of its own under an open log: `unshare -rm python -m support.full_disk <folder>`.

Prints what happened as JSON. The name space is this process's own, so that no rights are needed and
nothing is left behind.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from audit import Log, LogUnavailable, NoteVerifier
from audit.verify import read_entries, verify_log
from support.log_writers import KEY, ORIGIN, leaf

VERIFIER = NoteVerifier(ORIGIN, KEY.public_key())
SPACE = "24m"


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


async def refused(folder: Path) -> str:
    try:
        await Log.open(folder, origin=ORIGIN, key=KEY)
    except LogUnavailable as error:
        return str(error)
    return "opened"


async def fill(log: Log) -> tuple[int, str]:
    """Append until the disk is full; return how many were answered, and what the rest was told."""
    answered = 0
    while True:
        batch = [log.append(leaf(answered + number)) for number in range(500)]
        done = await asyncio.gather(*batch, return_exceptions=True)
        failed = [error for error in done if isinstance(error, LogUnavailable)]
        answered += len(done) - len(failed)
        if failed:
            return answered, str(failed[0])


async def main(root: Path) -> None:
    mount("-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(root))
    folder, ballast = root / "log", root / "ballast"
    log = await Log.open(folder, origin=ORIGIN, key=KEY)
    await log.append(leaf(0))
    with ballast.open("wb") as file:
        file.write(bytes(12 * 1024 * 1024))
    answered, told = await fill(log)
    answered += 1
    writable = log.writable
    ballast.unlink()
    index = await log.append(leaf(7))
    await log.close()
    verified = verify_log(folder, VERIFIER).records
    await asyncio.to_thread(mount, "-o", "remount,ro", str(root))
    read_only = await refused(folder)
    still = verify_log(folder, VERIFIER).records
    await asyncio.to_thread(mount, "-o", "remount,rw", str(root))
    log = await Log.open(folder, origin=ORIGIN, key=KEY)
    entries = log.entries(0, log.size)
    await log.close()
    sys.stdout.write(
        json.dumps(
            {
                "told": told,
                "writable": writable,
                "answered": answered,
                "index": index,
                "verified": verified,
                "read_only": read_only,
                "still": still,
                "kept": len(entries),
                "same": entries == read_entries(folder, verified),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
