"""Deadlines of a connection: what its caller owes must come, and what it is sent must be read.

uvicorn arms and cancels a timer for each request of a connection that is kept open, and waits for a
reader that has stalled for as long as it likes.
"""

import asyncio
import contextlib
import fcntl
import struct
import termios
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

UNREAD_TIMEOUT_S: Final = 20.0
READ_LEAST_BYTES_PER_S: Final = 1024

_INT: Final = struct.Struct("i")


class DeadlineProtocol(HttpToolsProtocol):
    """Closes a connection whose caller keeps it waiting.

    `due` is when what the caller owes must be there: the next request, its head or its body. Of an
    answer that waits to be sent it must read `READ_LEAST_BYTES_PER_S` over each `unread_timeout_s`.
    """

    unread_timeout_s = UNREAD_TIMEOUT_S

    due: float | None = None
    timer: asyncio.TimerHandle | None = None
    unsent_bytes = 0
    reading: asyncio.TimerHandle | None = None
    waiting_bytes = 0

    def pause_writing(self) -> None:
        """Write no more until what waits was read, and see to it that it is read."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Go on: most of what waited was read."""
        super().resume_writing()
        self._forget_reader()

    def _unset_keepalive_if_required(self) -> None:
        """Do nothing: the one timer sees for itself what is due."""

    def _expect(self, seconds: float) -> None:
        self.due = self.loop.time() + seconds
        if self.timer is None:
            self.timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Close the connection if what was due is not there, else look again later.

        One timer serves many requests: it is moved on when it fires, not with every request.
        """
        self.timer = None
        if self.due is None or self.transport.is_closing():
            return
        left = self.due - self.loop.time()
        if left <= 0 and self.flow.read_paused:
            # It is not the caller that keeps us waiting.
            left = self.unread_timeout_s
        if left <= 0 and (unsent := self._unread_bytes()):
            if unsent == self.unsent_bytes:
                self.transport.abort()
                return
            # It still reads the last answer.
            self.unsent_bytes, left = unsent, self.unread_timeout_s
        if left > 0:
            self.timer = self.loop.call_later(left, self._look)
        else:
            self.transport.close()

    def _watch_reader(self) -> None:
        if self.reading is None:
            self.waiting_bytes = self._unread_bytes()
            self.reading = self.loop.call_later(self.unread_timeout_s, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self.reading = None
        unread = self._unread_bytes()
        if not unread:
            return
        if unread > self.waiting_bytes - READ_LEAST_BYTES_PER_S * self.unread_timeout_s:
            # Whoever waits for its turn to write, and holds a place for as long, is woken by this.
            self.transport.abort()
        else:
            self._watch_reader()

    def _unread_bytes(self) -> int:
        """Return how much was written and is not with the caller yet, here or with the kernel.

        The kernel takes more only once a third of its own megabytes was read: what waits here stands
        still for long also where somebody reads.
        """
        waiting = int(self.transport.get_write_buffer_size())
        connection = self.transport.get_extra_info("socket")
        if waiting and connection is not None and connection.fileno() >= 0:
            # Not every system tells: then it is what waits here that counts.
            with contextlib.suppress(OSError):
                (queued,) = _INT.unpack(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(_INT.size)))
                waiting += queued
        return waiting

    def _forget_reader(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            self.reading = None

    def _disarm(self) -> None:
        self.due = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
