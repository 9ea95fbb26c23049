"""What every component's process begins with: from then on only what is listed is written.

    with telemetry_of(site) as telemetry:
        run_gateway(site, telemetry)

At every log level alike. An operator's log therefore says less than other services' do, and it never
says what was sent.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final

from bedside.errors import BedsideError
from bedside.telemetry.catalogue import MESSAGES
from bedside.telemetry.dropped import Dropped, What
from bedside.telemetry.dumps import forbid_core_dumps
from bedside.telemetry.names import SiteNames
from bedside.telemetry.outlet import Outlet
from bedside.telemetry.screen import Screen

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from bedside.site import Site

TELL_EVERY_S: Final = 60.0

logger = logging.getLogger("bedside.telemetry")


class Telemetry:
    """What one process may write, and what it did not."""

    def __init__(self, site: "Site", outlet: Outlet, dropped: Dropped) -> None:
        self.names = SiteNames(site)
        self.dropped = dropped
        self.announced = False
        self._outlet = outlet
        self._told = dropped.counts()
        self._tell_at = time.monotonic() + TELL_EVERY_S

    def say(self, text: str) -> None:
        """Write what the component says of itself to standard output."""
        self._outlet.say(text)

    def announce(self, text: str) -> None:
        """Say that the component is ready: from then on errors may be about what was sent."""
        self.announced = True
        self.say(text)

    def exposed(self, collectors: Sequence["Collector"]) -> "tuple[Collector, ...]":
        """Return what a scrape may be answered with, of what `collectors` say."""
        # prometheus_client takes a while to load, which a component without metrics need not pay.
        from bedside.telemetry.metrics import ScreenedCollector  # noqa: PLC0415

        return (ScreenedCollector(collectors, self.names, self.dropped),)

    def tell(self, *, at_once: bool = False) -> None:
        """Write how much was dropped, if it is more than was told and not told a moment ago."""
        counts = self.dropped.counts()
        now = time.monotonic()
        if counts == self._told or (now < self._tell_at and not at_once):
            return
        self._told, self._tell_at = counts, now + TELL_EVERY_S
        logger.info(
            "withheld so far: %d messages, %d parts of messages, %d lines of output, %d samples",
            *(counts[what] for what in (What.MESSAGE, What.ARGUMENT, What.OUTPUT, What.SAMPLE)),
        )


class _Handler(logging.Handler):
    """The one place where log messages leave the process."""

    def __init__(self, screen: Screen, outlet: Outlet, telemetry: Telemetry) -> None:
        super().__init__()
        self._screen = screen
        self._outlet = outlet
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        line = self._screen.line(record)
        if line is not None:
            self._outlet.report(line)
        elif record.name != logger.name:
            self._telemetry.tell()


@contextmanager
def telemetry_of(site: "Site") -> Iterator[Telemetry]:
    """Let this process write only what is listed, from here to the end of the block.

    An error that ends the block is written as its type and place. A `BedsideError` before anything was
    announced is passed on: it speaks of the operator's own files and settings.

    Raises:
        BedsideError: as above.
        SystemExit: with status 1, for any other error.
    """
    forbid_core_dumps()
    # gRPC's core would write to standard error for nothing.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    dropped = Dropped()
    outlet = Outlet(dropped)
    telemetry = Telemetry(site, outlet, dropped)
    handler = _Handler(Screen(MESSAGES, telemetry.names, dropped), outlet, telemetry)
    _take_over(handler, site.config.telemetry.log_level.upper())
    # The names of files and functions only, written without a lock.
    faulthandler.enable(file=outlet.error_file, all_threads=True)
    try:
        yield telemetry
    except BedsideError as error:
        if not telemetry.announced:
            raise
        logger.critical("the process ends: %s", error.__cause__ or error)
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001 the interpreter would write its message
        logger.critical("the process ends: %s", error)
        raise SystemExit(1) from None
    finally:
        faulthandler.disable()
        outlet.restore()
        telemetry.tell(at_once=True)
        logging.root.removeHandler(handler)
        outlet.close()


def _take_over(handler: logging.Handler, level: str) -> None:
    """Make `handler` the only way out for messages, and for errors that nobody catches."""
    for present in logging.root.handlers[:]:
        logging.root.removeHandler(present)
    logging.root.addHandler(handler)
    logging.root.setLevel(level)
    logging.captureWarnings(capture=True)
    sys.excepthook = _ends
    threading.excepthook = _thread_ends
    sys.unraisablehook = _unraisable


def _ends(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    del kind, traceback
    logger.critical("the process ends: %s", error)


def _thread_ends(happened: threading.ExceptHookArgs) -> None:
    logger.error("a thread ended: %s", happened.exc_value)


def _unraisable(happened: "sys.UnraisableHookArgs") -> None:
    logger.error("an error that nobody could be told of: %s", happened.exc_value)
