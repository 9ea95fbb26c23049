"""A process that leaks in every way it can: `python -m support.leaking <folder> <how> <word>`."""

import asyncio
import ctypes
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

from pydantic import BaseModel

from audit import LogUnavailable
from bedside.config import Config, TelemetryEntry
from bedside.errors import BedsideError
from bedside.serving import log_kind_only
from bedside.site import Site
from bedside.telemetry import telemetry_of

PR_GET_DUMPABLE = 3


class Strict(BaseModel):
    number: int


def validation_error(word: str) -> Exception:
    try:
        Strict.model_validate({"number": word})
    except ValueError as error:
        return error
    raise AssertionError(word)


def log(word: str) -> None:
    ours = logging.getLogger("audit.follow")
    listed = "record %d of %s waits for %.0f s: %s"
    ours.warning(listed, 7, "clinic/gateway-1", 2.0, validation_error(word))
    ours.warning(listed, 8, word, 2.0, word)
    ours.warning(
        listed, word, "clinic/gateway-1", word, LogUnavailable("the log cannot be written: why")
    )
    ours.warning(listed, 9, "clinic/gateway-1", 2.0)
    ours.error("a message that nobody listed: %s", word)
    ours.error(f"record {word} of %s waits for %.0f s: %s", "clinic/gateway-1", 2.0, OSError(28, word))
    logging.getLogger("bedside.accept").error(
        "no connection is accepted for %.0f s: %s", 1.0, OSError(28, word)
    )
    logging.getLogger(word).error(word)
    logging.getLogger("asyncio").error(
        "Task exception was never retrieved: %r", word, exc_info=validation_error(word)
    )
    own = logging.getLogger("flwr")
    own.addHandler(logging.StreamHandler())
    own.debug(word)
    own.critical(word)


def output(word: str) -> None:
    print(word)  # noqa: T201
    print(word, file=sys.stderr, flush=True)  # noqa: T201
    warnings.warn(word, stacklevel=1)
    # As C code does.
    libc = ctypes.CDLL(None)
    libc.dprintf(2, b"%s\n", word.encode())
    libc.puts(word.encode())
    libc.fflush(None)
    subprocess.run(["/bin/echo", word], check=True)
    sys.stderr.write(word)


def errors(word: str) -> None:
    thread = threading.Thread(target=int, args=(word,))
    thread.start()
    thread.join()

    class Broken:
        def __del__(self) -> None:
            raise validation_error(word)

    Broken()

    async def loop() -> None:
        running = asyncio.get_running_loop()
        running.set_exception_handler(log_kind_only)
        running.call_soon(int, word)
        lost = asyncio.ensure_future(asyncio.to_thread(int, word))
        await asyncio.wait([lost])
        del lost

    asyncio.run(loop())


def leak(how: str, word: str) -> None:
    if how in ("log", "output", "errors"):
        {"log": log, "output": output, "errors": errors}[how](word)
    elif how == "raise":
        raise validation_error(word)
    elif how == "raise ours":
        raise BedsideError(word) from validation_error(word)
    elif how.isdecimal():
        print(word, flush=True)  # noqa: T201
        os.kill(os.getpid(), int(how))
        time.sleep(60)


def main() -> None:
    folder, how, word = sys.argv[1:]
    site = Site(Config(data=Path(folder), telemetry=TelemetryEntry(log_level="debug")))
    with telemetry_of(site) as telemetry:
        telemetry.announce("ready")
        if how == "dumps":
            limit, _ = resource.getrlimit(resource.RLIMIT_CORE)
            telemetry.say(f"limit {limit}, dumpable {ctypes.CDLL(None).prctl(PR_GET_DUMPABLE)}")
        leak(how, word)


if __name__ == "__main__":
    signal.alarm(60)
    main()
