"""One timer for a connection: what its caller owes must be there in time.

uvicorn arms and cancels a timer for each request of a connection that is kept open.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

UNREAD_TIMEOUT_S: Final = 20.0


class DeadlineProtocol(HttpToolsProtocol):
    """Closes a connection whose caller keeps it waiting.

    `due` is when what the caller owes must be there: the next request, its head or its body.
    """

    due: float | None = None
    timer: asyncio.TimerHandle | None = None
    unsent_bytes = 0

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
            left = UNREAD_TIMEOUT_S
        unsent = self.transport.get_write_buffer_size()
        if left <= 0 and unsent:
            if unsent == self.unsent_bytes:
                self.transport.abort()
                return
            # It still reads the last answer.
            self.unsent_bytes, left = unsent, UNREAD_TIMEOUT_S
        if left > 0:
            self.timer = self.loop.call_later(left, self._look)
        else:
            self.transport.close()

    def _disarm(self) -> None:
        self.due = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
