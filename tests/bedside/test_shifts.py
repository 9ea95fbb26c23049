"""Connections in shifts: few at a time while the loop is busy, each in its turn, and nobody for long.

Seen to fail: with `over` always False nobody waits; with `look` calling nobody callers are lost;
without the deadline, whoever waits behind slow ones waits for ever; with `BUSY` 0 an idle loop keeps
callers waiting; with `_older` never counted down a place is lost with each request of the last window;
without `pause_reading` those who wait are read; without `end` at a stop, or without saying that the
connection ends, what they had sent is never answered.
"""

import asyncio
import socket
import struct
import threading
import time
from collections import deque

import pytest

from bedside import shifts as module
from bedside.http import serve_http
from bedside.listen import listen_tcp
from bedside.loop_load import LoopLoad
from bedside.shifts import ANSWERS, CROWD, FEW, LOOK_S, NOTHING_BEGUN, PATIENCE_MAX_S, REST_S, Shifts

PER_LOOK = 500
ON_ITS_WAY_S = 1e-3


class Load:
    """A loop that is as busy as it is told to be."""

    def __init__(self, busy):
        self.busy = busy
        self.closed = False

    def since(self):
        return self.busy

    def close(self):
        self.closed = True


class Connection:
    begun_in = NOTHING_BEGUN
    in_row = 0

    def __init__(self, hall, name):
        self.hall, self.name = hall, name
        self.waited_since = None

    def go_on(self, *, called):
        assert not called
        self.hall.waits.append(self.hall.now - self.waited_since)
        self.waited_since = None
        self.hall.ask(self)


class Hall:
    """A server on a clock of its own whose callers all ask again as soon as they are answered.

    `outsiders` of them are never asked whether they could be left unread; answers come `together`.
    """

    def __init__(self, callers, *, busy=1.0, patience_s=1.0, outsiders=0, together=1):
        self.now = 100.0
        self.step_s = LOOK_S / PER_LOOK
        self.together = together
        self.load = Load(busy)
        self.refusing = False
        self.waits, self.order, self.most, self.idle = [], [], 0, 0
        self.shifts = Shifts(
            patience_s,
            refusing=lambda: self.refusing,
            load=lambda: self.load,
            clock=lambda: self.now,
        )
        self.outsiders = range(callers - outsiders, callers)
        # Whose request is on its way, and when it is there; and whose request is under way.
        self.asking = deque((self.now, Connection(self, name)) for name in range(callers))
        self.under_way = deque()
        self.look_at = None

    def serve(self, answers):
        """Take in what was sent, and answer the oldest; look when the timer would."""
        for _ in range(answers // self.together):
            while self.asking and self.asking[0][0] <= self.now:
                connection = self.asking.popleft()[1]
                self.shifts.begun(connection)
                self.under_way.append(connection)
            self.most = max(self.most, len(self.under_way))
            self.now += self.step_s * self.together
            for _ in range(self.together):
                if self.under_way:
                    self.answer(self.under_way.popleft())
                else:
                    self.idle += 1
            if not self.shifts.watching:
                self.look_at = None
            elif self.look_at is None:
                self.look_at = self.now + self.shifts.look_in_s
            elif self.now >= self.look_at:
                self.shifts.look()
                self.look_at = self.now + self.shifts.look_in_s

    def answer(self, connection):
        self.order.append(connection.name)
        self.shifts.answered(connection)
        if connection.name not in self.outsiders and self.shifts.over(connection):
            connection.waited_since = self.now
        else:
            self.ask(connection)

    def ask(self, connection):
        self.asking.append((self.now + ON_ITS_WAY_S, connection))

    def settle(self, answers=3000):
        """Serve until shifts have begun, if they will, and forget what was noted by then."""
        self.serve(answers)
        self.waits, self.order, self.most, self.idle = [], [], 0, 0

    def share(self, names):
        """Return which part of the answers these callers had."""
        return sum(name in names for name in self.order) / len(self.order)


@pytest.mark.parametrize("together", [1, 32])
async def test_few_are_read_from_at_a_time_and_each_has_its_turn_and_its_answers_in_a_row(together):
    hall = Hall(500, together=together)
    hall.settle()
    hall.serve(500 * ANSWERS * 4)
    assert hall.most <= FEW + together
    assert hall.idle == 0
    counts = [hall.order.count(name) for name in range(500)]
    assert min(counts) >= ANSWERS
    assert max(counts) <= 6 * ANSWERS
    # A wait is followed by as many answers as a shift has; by fewer where answers come together, and
    # those who are called in the place of one meet the others, who ask again.
    in_a_row = len(hall.order) / len(hall.waits)
    assert (0.95 if together == 1 else 0.65) * ANSWERS < in_a_row < 1.05 * ANSWERS
    # First come, first called: nobody waits much longer than the others.
    assert max(hall.waits) < 1.3 * min(hall.waits)


async def test_shifts_are_shorter_where_more_wait_so_that_nobody_waits_for_long():
    hall = Hall(2000)
    hall.settle(20_000)
    hall.serve(20_000)
    assert hall.most <= FEW + 1
    assert hall.idle == 0
    assert 2 <= len(hall.order) / len(hall.waits) < ANSWERS
    assert max(hall.waits) <= PATIENCE_MAX_S / 2 * 1.2


def refusing():
    hall = Hall(500)
    hall.refusing = True
    return hall


@pytest.mark.parametrize(
    "hall",
    [
        lambda: Hall(500, busy=0.5),
        refusing,
        lambda: Hall(500, patience_s=0.05),
        lambda: Hall(CROWD),
        lambda: Hall(500, outsiders=100),
    ],
    ids=[
        "the loop has time left",
        "others are refused",
        "nobody is to wait so long",
        "they are few",
        "many cannot be left unread",
    ],
)
async def test_there_are_no_shifts_where_they_bring_nothing(hall):
    made = hall()
    made.serve(20_000)
    assert made.waits == []
    assert len(made.shifts) == 0


async def test_shifts_begin_as_soon_as_nothing_speaks_against_them():
    hall = refusing()
    hall.settle()
    hall.refusing = False
    hall.serve(3 * PER_LOOK)
    assert len(hall.shifts) > 300


async def test_a_crowd_that_leaves_is_a_crowd_no_more():
    hall = Hall(500)
    hall.settle()
    for _ in range(400):
        hall.shifts._waiting.pop()
    assert 0 < len(hall.shifts) < CROWD
    hall.serve(2 * PER_LOOK)
    assert len(hall.shifts) == 0


@pytest.mark.parametrize("outsiders", [10, 40, 100, 300])
async def test_whoever_cannot_be_left_unread_has_little_at_the_cost_of_the_others(outsiders):
    hall = Hall(500, outsiders=outsiders)
    hall.settle()
    hall.serve(20_000)
    assert hall.idle == 0
    assert hall.share(hall.outsiders) < outsiders / 500 + 0.12


async def test_nobody_stands_idle_when_shifts_are_given_up():
    hall = Hall(500)
    hall.settle()
    assert len(hall.shifts) > 300
    hall.refusing = True
    hall.serve(2 * PER_LOOK)
    assert len(hall.shifts) == 0
    assert hall.idle == 0
    # They are not taken up again at once.
    hall.refusing = False
    hall.serve(5 * PER_LOOK)
    assert len(hall.shifts) == 0
    hall.serve(int(REST_S / hall.step_s))
    assert len(hall.shifts) > 300


async def test_a_short_stall_is_no_reason_to_give_shifts_up():
    hall = Hall(1600)
    hall.settle(10_000)
    waiting = len(hall.shifts)
    assert waiting > 1500
    hall.now += 0.8 * LOOK_S
    hall.serve(2 * PER_LOOK)
    assert len(hall.shifts) > 0.9 * waiting


async def test_as_long_as_somebody_waits_it_is_looked_for():
    hall = Hall(500)
    hall.settle()
    # All the others leave, and one waits.
    while len(hall.shifts) > 1:
        hall.shifts._waiting.pop()
    for connection in hall.under_way:
        hall.shifts.gone(connection)
    hall.shifts._few = 0
    for _ in range(20):
        hall.shifts._calm += 1
    await asyncio.sleep(0.05)
    assert hall.shifts.watching
    assert len(hall.shifts) == 1
    hall.now += PATIENCE_MAX_S
    await asyncio.sleep(0.05)
    assert len(hall.shifts) == 0


async def test_a_loop_that_gets_time_again_lets_all_of_them_in():
    hall = Hall(500)
    hall.settle()
    assert len(hall.shifts) > 300
    hall.load.busy = 0.3
    hall.serve(5 * PER_LOOK)
    assert len(hall.shifts) == 0
    hall.load.busy = 1.0
    hall.serve(3 * PER_LOOK)
    assert len(hall.shifts) > 300


async def test_requests_that_take_long_take_no_place():
    hall = Hall(500)
    hall.settle()
    slow, hall.under_way = hall.under_way, deque()
    assert len(slow) > FEW / 2
    hall.serve(3 * PER_LOOK)
    assert len(hall.under_way) + len(hall.asking) > FEW / 2
    # Answered late, they give no place back that they did not hold any more.
    hall.most = 0
    hall.under_way += slow
    hall.serve(4 * PER_LOOK)
    assert len(hall.under_way) + len(hall.asking) <= FEW + 1


async def test_nobody_waits_for_longer_than_is_said_whatever_the_others_do():
    hall = Hall(500, patience_s=0.5)
    hall.settle()
    waiting = len(hall.shifts)
    assert waiting > 300
    hall.now += 0.5
    hall.shifts.look()
    assert len(hall.shifts) == 0
    assert len(hall.waits) == waiting


async def test_one_that_is_lost_gives_its_place_back():
    shifts = Shifts(1.0, load=lambda: Load(1.0))
    lost = [Connection(None, name) for name in range(CROWD * 2)]
    for connection in lost:
        shifts.begun(connection)
        shifts.gone(connection)
        shifts.gone(connection)
    one = Connection(None, "one")
    shifts.begun(one)
    shifts.answered(one)
    assert not shifts.watching


async def test_once_it_is_calm_nothing_is_watched_any_more():
    hall = Hall(500)
    hall.settle()
    hall.asking, hall.under_way = deque(), deque()
    for _ in range(20):
        hall.now += LOOK_S
        hall.shifts.look()
    await asyncio.sleep(0.05)
    assert not hall.shifts.watching
    assert hall.load.closed


async def test_a_connection_that_cannot_go_on_keeps_no_other_from_its_turn():
    hall, failed = Hall(500), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    hall.settle()
    waiting = len(hall.shifts)

    def fail(*, called):
        raise RuntimeError(called)

    # Whoever is called next.
    hall.shifts._waiting[0][1].go_on = fail
    for connection in hall.under_way:
        hall.shifts.gone(connection)
    async with asyncio.timeout(10):
        while len(hall.shifts) >= waiting - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(failed) == 1


async def test_at_the_end_all_go_on_and_nobody_is_left_unread_any_more():
    hall = Hall(500)
    hall.settle()
    assert len(hall.shifts) > 300
    hall.shifts.end()
    assert len(hall.shifts) == 0
    hall.waits = []
    hall.serve(2000)
    assert hall.waits == []


def test_a_load_tells_work_from_waiting():
    load = LoopLoad()
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass
    worked = load.since()
    time.sleep(0.2)
    waited = load.since()
    load.close()
    # Another process may have had the processor meanwhile: a wait for it counts as work too.
    assert worked > 0.8
    assert waited < 0.3


def test_a_thread_that_ran_with_nothing_to_do_did_not_work():
    """As the gateway's does while it is kept awake for the log: it looked as if all waited for it."""
    idle_s = 0.0
    load = LoopLoad(lambda: idle_s)
    began = time.monotonic()
    while (idle_s := time.monotonic() - began) < 0.2:
        pass
    assert load.since() < 0.3
    load.close()


def test_where_linux_does_not_tell_it_the_processor_time_counts(monkeypatch, tmp_path):
    monkeypatch.setattr("bedside.loop_load._SCHEDSTAT", tmp_path / "nothing")
    load = LoopLoad()
    time.sleep(0.1)
    assert load.since() < 0.3
    load.close()


def test_where_the_kernel_counts_nothing_the_processor_time_counts(monkeypatch, tmp_path):
    (tmp_path / "schedstat").write_text("0 0 0\n")
    monkeypatch.setattr("bedside.loop_load._SCHEDSTAT", tmp_path / "schedstat")
    load = LoopLoad()
    began = time.thread_time()
    while time.thread_time() - began < 0.1:
        pass
    assert load.since() > 0.1
    load.close()


@pytest.fixture
def easily_crowded(monkeypatch):
    """A crowd as small and as slow as a test has, whose server shares a processor with it."""
    monkeypatch.setattr(module, "CROWD", 128)
    monkeypatch.setattr(module, "BUSY", 0.3)
    monkeypatch.setattr(module, "PATIENCE_MAX_S", 10.0)


async def busy_app(scope, receive, send):
    """Take a part of a millisecond of the processor, and answer with the body; or wait for long."""
    body = (await receive())["body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    until = time.perf_counter() + 1e-4
    while time.perf_counter() < until:
        pass
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Watched(Shifts):
    """Shifts that note how many waited at the most, and who was read although it waited."""

    def __init__(self):
        super().__init__(10.0)
        self.most = self.begun_so_far = self.read_too_early = self.left_in_a_head = 0

    def begun(self, connection):
        self.begun_so_far += 1
        self.read_too_early += any(waiting is connection for _, waiting in self._waiting)
        super().begun(connection)

    def over(self, connection):
        left = super().over(connection)
        self.left_in_a_head += connection.in_head
        self.most = max(self.most, len(self))
        return left


class Server:
    """A server in a thread of its own, so that its load is its own."""

    def __init__(self):
        self.shifts = Watched()
        self._listener = listen_tcp("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)

    async def until(self, true):
        """Wait until it holds for the shifts, which are another thread's."""
        async with asyncio.timeout(30):
            while not true(self.shifts):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await serve_http(busy_app, self._listener, self._stop, self._ready.set, shifts=self.shifts)


class Caller:
    """Asks over one connection, and counts."""

    def __init__(self, port, name):
        self.port, self.name = port, name
        self.asked = self.answered = 0
        self.enough = False

    def request(self, number):
        body = b"%d of %d" % (number, self.name)
        return body, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def ask(self, times, ahead=0):
        """Ask so many times; the first bytes of the next request may be sent `ahead`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            sent = 0
            for number in range(times):
                body, request = self.request(number)
                _, following = self.request(number + 1)
                writer.write(request[sent:] + following[:ahead])
                sent = ahead
                self.asked += 1
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                assert head.startswith(b"HTTP/1.1 200")
                assert await asyncio.wait_for(reader.readexactly(len(body)), 20) == body
                self.answered += 1
                if self.enough or b"connection: close" in head:
                    return
        finally:
            writer.close()


async def ask_until_some_wait(server, ahead):
    """Have 300 callers ask until many waited; `ahead` says how much each sends ahead, by its name."""
    callers = [Caller(server.port, name) for name in range(300)]
    asking = [asyncio.create_task(caller.ask(100_000, ahead=ahead(caller.name))) for caller in callers]
    await server.until(lambda shifts: shifts.most > 100)
    for caller in callers:
        caller.enough = True
    await asyncio.gather(*asking)
    assert all(caller.answered == caller.asked > 0 for caller in callers)


async def test_each_caller_of_a_crowd_gets_its_own_answers_and_some_wait_unread(easily_crowded):
    with Server() as server:
        await ask_until_some_wait(server, lambda _: 0)
        assert server.shifts.read_too_early == 0


async def test_nobody_is_left_unread_in_the_middle_of_a_head(easily_crowded):
    with Server() as server:
        await ask_until_some_wait(server, lambda name: 5 if name < 3 else 0)
        assert server.shifts.left_in_a_head == 0


async def test_what_waits_unread_when_the_server_stops_is_answered_first(easily_crowded, monkeypatch):
    # Nobody is called, but by the end.
    monkeypatch.setattr(module, "TICK_S", 60)
    with Server() as server:
        callers = [Caller(server.port, name) for name in range(300)]
        asking = [asyncio.create_task(caller.ask(10_000)) for caller in callers]
        await server.until(lambda shifts: len(shifts) >= 150)
        server.stop()
        ended = await asyncio.gather(*asking, return_exceptions=True)
    unanswered = [end for end in ended if end is not None]
    assert all(isinstance(end, (asyncio.IncompleteReadError, ConnectionError)) for end in unanswered)
    # A request may cross the end of its connection, but not of those who waited: they asked before.
    assert len(unanswered) <= FEW


async def test_callers_who_left_before_they_were_answered_are_no_crowd():
    with Server() as server:
        head = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        writers = []
        for _ in range(CROWD + FEW):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head)
            # What is closed like this is reset.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writers.append(writer)
        await server.until(lambda shifts: shifts.begun_so_far == CROWD + FEW)
        for writer in writers:
            writer.transport.abort()
        await server.until(lambda shifts: not shifts.taken)
        await Caller(server.port, 0).ask(1)
        assert not server.shifts.watching
