"""uvicorn's HTTP/1.1 protocol at less cost, and with limits on what a caller may hold open.

uvicorn makes a task for each request, which costs 5 us in Python 3.11 (the registry of tasks is a weak
set); here a connection keeps one task, and one timer. Together with the shorter way out of
`http_cycle.py` that is a sixth of a small request, measured at 32 connections.

uvicorn limits neither how large a request's head is nor how long a caller may take to send it. Here a
head has at most 64 KiB and 128 fields and 10 s to arrive, a body 20 s and another second for each
16 KiB of it. What two parsers could read differently is refused: a request without exactly one Host
(RFC 9112 section 3.2), and any transfer coding but `chunked` (section 6.1).

A caller that has asked and closes its side of the connection is answered all the same. Whoever listens
for callers that hang up, as streams do, takes it for that: a closed side looks the same until something
is written.
"""

import asyncio
import urllib.parse
from collections import deque
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, Final, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from bedside.held import HeldConnections
from bedside.http_cycle import Cycle
from bedside.http_upgrade import UpgradeProtocol
from bedside.shifts import NOTHING_BEGUN, Shifts

HEAD_LIMIT_BYTES: Final = 64 * 1024
FIELDS_MAX: Final = 128
HEAD_TIMEOUT_S: Final = 10.0
BODY_TIMEOUT_S: Final = 20.0
BODY_LEAST_BYTES_PER_S: Final = 16 * 1024

# In the scope of a request whose work ends with its connection. As everywhere here, it is known by its
# name: what serves it is another package's.
ABANDONABLE: Final = "bedside.abandonable"


class _RequestRefused(Exception):
    """Raised inside the parser where a request breaks a rule that is ours or HTTP's."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Threshold(Protocol):
    """Refuses requests by their head, so that their body is never looked at."""

    @property
    def crowded(self) -> Collection[str]:
        """What requests may be refused for now; nothing is asked while there is nothing."""

    def turn_away(
        self,
        path: str,
        headers: list[tuple[bytes, bytes]],
        answer: Callable[[int, tuple[tuple[bytes, bytes], ...], bytes], None],
        *,
        called: bool,
    ) -> str | None:
        """Refuse a POST, and say for what; `answer` is called later. None: it is not refused.

        A place may have been kept for whoever was `called`.
        """


class WholeResponseProtocol(UpgradeProtocol):
    """Serves one connection; give it to uvicorn as `http`."""

    asgi: Any = None
    in_head = False
    unread = False
    called = False
    head_bytes = 0
    fed_body = False
    hosts = 0
    body_bytes = 0
    body_since = 0.0
    worker: asyncio.Task[None] | None = None
    waiter: asyncio.Future[Cycle | None] | None = None
    gone = False
    begun_in = NOTHING_BEGUN
    in_row = 0

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 uvicorn's own
        threshold: Threshold | None = None,
        held: HeldConnections | None = None,
        shifts: Shifts | None = None,
        stop: asyncio.Event | None = None,
        unread_timeout_s: float | None = None,
        **named: Any,  # noqa: ANN401 uvicorn's own
    ) -> None:
        super().__init__(*args, **named)
        self.threshold = threshold
        self.held = held
        self.shifts = shifts
        self.stop = asyncio.Event() if stop is None else stop
        if unread_timeout_s is not None:
            self.unread_timeout_s = unread_timeout_s

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 uvicorn's own type
        """Begin a connection; a caller that says nothing is not waited for long."""
        super().connection_made(transport)
        # One for all requests of the connection: only the one whose body is being read waits for it.
        self.message_event = asyncio.Event()
        self.todo: deque[Cycle] = deque()
        self._expect(HEAD_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        """Take what came; what is no request, or one that is not served, ends the connection."""
        self.fed_body = False
        try:
            if self.feed(data):
                self.handle_websocket_upgrade()
                return
        except httptools.HttpParserError as error:
            cause = error.__context__ or error.__cause__
            self._end(cause.status if isinstance(cause, _RequestRefused) else HTTPStatus.BAD_REQUEST)
            return
        cycle = self.cycle
        if self.in_head or (cycle is not None and cycle.more_body and not self.fed_body):
            # A field that is not complete is with the parser, which has no limit. Behind a chunked
            # body come fields too.
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_LIMIT_BYTES:
                self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol, or refuse what offers it wrongly."""
        if not self._offers_well() or not (self.cycle is None or self.cycle.response_complete):
            self._end(HTTPStatus.BAD_REQUEST)
            return
        self.gone = True
        self._wake()
        super().handle_websocket_upgrade()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; one behind a chunked body is let go (RFC 9110 section 6.5.1)."""
        self.head_bytes += len(name) + len(value)
        fields = len(self.headers) if self.in_head else 0
        if self.head_bytes > HEAD_LIMIT_BYTES or fields >= FIELDS_MAX:
            raise _RequestRefused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if not self.in_head:
            return
        name = name.lower()
        if name == b"host":
            self.hosts += 1
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise _RequestRefused(HTTPStatus.NOT_IMPLEMENTED)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_message_begin(self) -> None:
        """Begin a request's scope."""
        self.in_head, self.head_bytes, self.hosts, self.unread = True, 0, 0, False
        self._expect(HEAD_TIMEOUT_S)
        if self.asgi is None:
            self.asgi = {"version": self.config.asgi_version, "spec_version": "2.3"}
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        scope: Any = {
            "type": "http",
            "asgi": self.asgi,
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": self.headers,
        }
        self.scope = scope

    def on_headers_complete(self) -> None:
        """Start the request, once its head has been read; one that offers an upgrade comes again."""
        self.in_head = False
        version = self.parser.get_http_version()
        if self.hosts > 1 or (self.hosts == 0 and version == "1.1"):
            raise _RequestRefused(HTTPStatus.BAD_REQUEST)
        method = self.parser.get_method()
        if method == b"CONNECT":
            # For the parser it is an upgrade too.
            raise _RequestRefused(HTTPStatus.BAD_REQUEST)
        self.scope["method"] = method.decode("ascii")
        if self.parser.should_upgrade():
            return
        self.body_since, self.body_bytes = self.loop.time(), 0
        self.due = self.body_since + BODY_TIMEOUT_S
        url = httptools.parse_url(self.url)
        raw_path = url.path
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["http_version"] = version
        scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = url.query or b""
        earlier = self.cycle
        keep_alive = version != "1.0" and self.parser.should_keep_alive() and not self.stop.is_set()
        self.cycle = cycle = Cycle(self, self.message_event, scope, keep_alive=keep_alive)
        if earlier is None or earlier.response_complete:
            threshold = self.threshold
            if threshold is None or not threshold.crowded or not self._turned_away(threshold, cycle):
                self._begin(cycle)
        else:
            # Pipelined: it begins once the one before it has been answered.
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; one that comes fast enough may take as long as it needs."""
        self.fed_body, self.head_bytes = True, 0
        if not self.unread:
            super().on_body(body)
        if not self.cycle.response_complete:
            self.body_bytes += len(body)
            allowed = BODY_TIMEOUT_S + self.body_bytes / BODY_LEAST_BYTES_PER_S
            self.due = self.body_since + allowed

    def on_message_complete(self) -> None:
        """Take note that the caller owes nothing more."""
        self.due = None
        if self.parser.should_upgrade():
            return
        if self.unread:
            self.cycle.more_body = False
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the next pipelined request, or wait for one as long as connections are kept open."""
        self.server_state.total_requests += 1
        shifts = self.shifts
        if shifts is not None:
            shifts.answered(self)
        self._forget_request()
        if self.transport.is_closing():
            # It is closed once its last answer was read.
            if self.transport.get_write_buffer_size():
                self._watch_reader()
            return
        if self.pipeline:
            self.flow.resume_reading()
            self._begin(self.pipeline.pop()[0])  # type: ignore[arg-type]
            return
        if shifts is not None and self._between and shifts.over(self):
            self._leave_unread()
            return
        self.flow.resume_reading()
        if not self.in_head:
            # Whoever goes on sending a body that was answered already is not waited for either.
            self._expect(self.timeout_keep_alive)

    def _forget_request(self) -> None:
        """Free what was kept of a request that is over, while the processor's caches still hold it."""
        cycle = self.cycle
        if self.in_head:
            # What is kept by now belongs to the next one, whose head is half read.
            return
        if cycle is not None and cycle.response_complete and not cycle.more_body:
            self.cycle = self.scope = self.headers = None  # type: ignore[assignment]

    def _turned_away(self, threshold: Threshold, cycle: Cycle) -> bool:
        """Refuse the request by its head, if it must be refused and its body comes unasked."""
        if cycle.scope["method"] != "POST" or self.expect_100_continue:
            return False
        called, self.called = self.called, False
        path, headers = cycle.scope["path"], self.headers
        model = threshold.turn_away(path, headers, cycle.turn_away, called=called)
        if model is None:
            return False
        self.unread = True
        cycle.on_response = lambda: self._after_refusal(model)
        return True

    def _after_refusal(self, model: str) -> None:
        """Go on, or leave the connection unread for a while where nothing of a request is open."""
        if (
            self.held is not None
            and self._between
            and not self.transport.is_closing()
            and self.held.refused(self, model)
        ):
            self.server_state.total_requests += 1
            self._forget_request()
            self._leave_unread()
        else:
            self.on_response_complete()

    @property
    def _between(self) -> bool:
        """Whether nothing of a request is open, so that the connection can be left unread."""
        cycle = self.cycle
        return not self.pipeline and not self.in_head and (cycle is None or not cycle.more_body)

    def _leave_unread(self) -> None:
        self.due = None
        self.flow.pause_reading()

    def go_on(self, *, called: bool) -> None:
        """Read from a connection again that was left unread; for one `called` a place is kept."""
        self.called = called
        if not self.gone and not self.transport.is_closing():
            self.flow.resume_reading()
            self._expect(self.timeout_keep_alive)

    # asyncio's own type; uvicorn's is narrower.
    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Close the connection, or answer first what the caller has asked in full."""
        cycle: Any = self.cycle
        if self.gone or cycle is None or cycle.response_complete or cycle.more_body:
            return None
        cycle.caller_ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._forget_reader()
        if self.shifts is not None:
            self.shifts.gone(self)
        super().connection_lost(exc)
        cycle = self.cycle
        if (
            cycle is not None
            and ABANDONABLE in cycle.scope
            and not cycle.response_complete
            and self.worker is not None
        ):
            # Nobody waits for its answer. (Of pipelined requests this is the last, and not begun yet.)
            self.worker.cancel()
        self.gone = True
        self._wake()

    def _begin(self, cycle: Cycle) -> None:
        if self.shifts is not None:
            self.shifts.begun(self)
        if self.worker is None:
            self.worker = self.loop.create_task(self._work(), name="http connection")
        if self.waiter is None:
            self.todo.append(cycle)
        else:
            self._wake(cycle)
        # The server waits for these when it stops.
        self.tasks.add(self.worker)

    def _wake(self, cycle: Cycle | None = None) -> None:
        if self.waiter is not None:
            self.waiter.set_result(cycle)
            self.waiter = None

    async def _work(self) -> None:
        """Answer the requests of the connection, one after the other, until it is gone."""
        todo, app = self.todo, self.app
        try:
            while True:
                while todo:
                    await todo.popleft().run_asgi(app)
                self.tasks.discard(self.worker)
                if self.gone:
                    return
                self.waiter = self.loop.create_future()
                cycle = await self.waiter
                if cycle is not None:
                    await cycle.run_asgi(app)
                    cycle = None
        finally:
            self.waiter = None
            self.tasks.discard(self.worker)

    def _end(self, status: HTTPStatus) -> None:
        """Refuse a request that cannot be read on, and close the connection."""
        self._disarm()
        cycle = self.cycle
        owed = cycle is not None and not cycle.response_complete and not cycle.more_body
        if self.pipeline or owed:
            # An earlier request waits for its answer, and would take this one for it.
            self.transport.close()
            return
        text = status.phrase.encode()
        self.transport.write(
            b"%scontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%s" % (STATUS_LINE[status], len(text), text)
        )
        self.transport.close()
