"""A work-conserving batcher: an idle runtime never waits, what waits meanwhile runs together.

Requests that come together, or while every instance is busy, become the next batch. Nothing is delayed
in the hope of company, unless `max_queue_delay_s` is configured. The queue is bounded; a full one
refuses at once, and so does one that a request cannot leave before its deadline.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from inference_node.alarm import Alarm
from inference_node.batch import (
    Feed,
    Item,
    QueuePolicy,
    Ragged,
    Trims,
    delay,
    enqueue,
    join,
    leaves_at,
    shapes,
    split,
    take_batch,
    waits_longer,
)
from inference_node.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InputInvalid,
    NodeError,
    QueueFull,
    RowsMixed,
)
from inference_node.gathering import Gathering
from inference_node.oip import Array
from inference_node.statistics import Counters, Failure, Timing

logger = logging.getLogger(__name__)

Run = Callable[[Feed, Sequence[str]], list[Array]]
Part = tuple[list[Item], list[list[Array]] | ExecutionFailed, Timing]
"""Items that ran together, an answer for each or why there is none, and how long it took."""

_NOT_RUN = "the model could not be run on these inputs"
_TOO_LATE = "the deadline passed before the model was done"
_NO_TIME: Timing = (0, 0.0, 0.0, 0.0)


class Batcher:
    """Queues the requests of one model version and runs them in batches.

    With an `executor` batches run in its threads, up to `instances` at a time. Without one they run on
    the event loop: right for a model so small that the hop to a thread costs more than the run. Only
    what has more than `max_rows` then runs in `beyond`, if there is one.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_rows: int,
        max_queue_size: int,
        executor: Executor | None,
        beyond: Executor | None = None,
        instances: int = 1,
        policy: QueuePolicy | None = None,
        ragged: Ragged = Ragged.SEPARATE,
        trims: Trims | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self.policy = policy = policy or QueuePolicy()
        self._max_queue_size = policy.max_queue_size or max_queue_size
        self._executor = executor
        self._beyond = beyond
        self._instances = instances if executor is not None else 1
        self._delay_s = policy.max_queue_delay_s
        self._ragged = ragged
        self._pad = ragged is Ragged.PAD
        self._trims = trims
        self._clock = clock
        # Whether a request without limits of its own just goes to the end of the queue.
        self._plain = not (
            policy.priority_levels or policy.timeout_s or policy.delays_late or ragged is Ragged.REFUSE
        )
        self._queue: deque[Item] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        # The turn of the loop in which the queue is looked at; there is one at most.
        self._turn: asyncio.Handle | None = None
        self._company: asyncio.TimerHandle | None = None
        self._alarm = Alarm(clock, self._ring)
        self._gathering = Gathering()
        self._busy = 0
        self._held = 0
        self._cleared = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.counters = Counters(max_rows)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(not item.future.done() for item in self._queue)

    def submit(
        self,
        feed: Feed,
        outputs: tuple[str, ...],
        rows: int,
        deadline: float | None = None,
        *,
        priority: int = 0,
        timeout_s: float = 0.0,
    ) -> asyncio.Future[list[Array]]:
        """Queue one request; the future gives its outputs.

        `deadline` is a time of the clock by which the answer is wanted: a request that cannot be
        answered by then is refused, at once where that is clear at once. `priority` and `timeout_s` (in
        the queue) are what the request asks of the queue policy, 0 for its defaults.

        Raises:
            QueueFull: at once, if `max_queue_size` requests wait.
            DeadlineExceeded: at once, if those that wait take longer than the request has.
            InputInvalid: if it may not wait together with requests of other shapes.
        """
        queue = self._queue
        if len(queue) >= self._max_queue_size and not self._clear_cancelled():
            self.counters.failed(Failure.QUEUE_FULL)
            raise QueueFull(f"{self._max_queue_size} requests already wait for the model")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        item = Item(feed, outputs, rows, deadline, loop.create_future(), self._clock())
        if self._plain and deadline is None and not timeout_s:
            queue.append(item)
        else:
            self._admit(item, priority, timeout_s)
        if self._turn is not None:
            return item.future
        alone = self._executor is None and not self._delay_s and rows <= self._max_rows
        alone = alone and not self._busy and self._gathering.runs_at_once()
        if self._busy < self._instances:
            self._idle.clear()
            self._turn = loop.call_soon(self._gather)
        if alone:
            self._run_alone(queue.popleft())
        return item.future

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep `drain` waiting while somebody is going to submit more."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._rest()

    async def drain(self) -> None:
        """Wait until nothing waits, runs or is going to; from then on nothing waits for company."""
        self._delay_s = 0.0
        if self._company is not None:
            self._flush()
        self._rest()
        while self._held or not self._idle.is_set():
            self._idle.clear()
            self._rest()
            await self._idle.wait()
        self._alarm.cancel()

    def _rest(self) -> None:
        if not (self._queue or self._busy or self._turn or self._held):
            self._idle.set()

    def _clear_cancelled(self) -> bool:
        """Make room where requests that wait were cancelled; looked for once for each batch."""
        if self._cleared:
            return False
        self._cleared = True
        left = [item for item in self._queue if not item.future.done()]
        self._queue.clear()
        self._queue.extend(left)
        return len(left) < self._max_queue_size

    def _admit(self, item: Item, priority: int, timeout_s: float) -> None:
        """Queue a request that has limits, or that the policy orders."""
        policy = self.policy
        if policy.priority_levels:
            item.rank = 2 * policy.priority(priority)
        if timeout_s or policy.timeout_s:
            self._limit(item, policy.timeout(timeout_s))
        self._refuse_hopeless(item)
        if self._ragged is Ragged.REFUSE:
            other = next((other for other in self._queue if not other.future.done()), None)
            if other is not None and shapes(other) != shapes(item):
                self.counters.failed(Failure.INPUT)
                raise InputInvalid("the model does not take requests of different shapes at a time")
        enqueue(self._queue, item)
        if item.deadline is not None and (self._executor is not None or self._busy):
            # Who waits in vain is told then, not later.
            self._alarm.set(item.deadline)

    def _limit(self, item: Item, timeout_s: float) -> None:
        if not timeout_s:
            return
        at = item.queued_at + timeout_s
        if not self.policy.delays_late:
            item.deadline = at if item.deadline is None else min(at, item.deadline)
            item.expires = item.deadline
        elif item.expires is None or at < item.expires:
            item.expires = at

    def _refuse_hopeless(self, item: Item) -> None:
        """Refuse a request that cannot be done in time.

        Only what is certainly ahead counts, in full batches. An idle model takes every request whose
        deadline has not passed: one slow run must not have all that follow refused for ever.
        """
        if item.deadline is None:
            return
        hopeless = item.deadline <= item.queued_at
        average_s = self.counters.average_s
        if not hopeless and average_s and not self._free():
            runs = (item.deadline - item.queued_at) / average_s
            if item.deadline == item.due:
                runs -= 1  # its own
            hopeless = runs < 0 or waits_longer(
                self._queue, item, (int(runs) + 1) * self._instances, self._max_rows
            )
        if hopeless:
            self.counters.failed(Failure.DEADLINE)
            raise DeadlineExceeded("the request cannot be done before its deadline")

    def _free(self) -> bool:
        return self._busy < self._instances and all(item.future.done() for item in self._queue)

    def _gather(self) -> None:
        loop = self._loop
        if loop is not None and self._gathering.goes_on(len(self._queue), self._max_rows):
            self._turn = loop.call_soon(self._gather)
        else:
            self._flush()

    def _flush(self) -> None:
        if self._turn is not None:
            self._turn.cancel()  # where this is another: two runs in a turn hold up who was answered
            self._turn = None
        self._cleared = False
        if self._company is not None:
            self._company.cancel()
            self._company = None
        queue = self._queue
        while self._busy < self._instances:
            inline = self._executor is None and not self._delay_s
            if inline and len(queue) == 1 and queue[0].rows <= self._max_rows:
                self._run_alone(queue.popleft())
                break
            if self._delay_s and queue and self._waits_for_company():
                return
            now = self._clock()
            batch, late = take_batch(queue, self._max_rows, now, pad=self._pad)
            for item in late:
                self._refuse_late(item, now)
            if not batch:
                if queue:
                    continue
                break
            executor = self._executor or (self._beyond if batch[0].rows > self._max_rows else None)
            if executor is None:
                self._settle(self._attempt(batch))
                break
            self._start(batch, executor)
            if executor is self._beyond:
                self._ring()  # an alarm for those who wait behind it
        if self._executor is None and queue and not self._busy and self._loop is not None:
            # In a turn of its own: those who were answered go on first.
            self._turn = self._loop.call_soon(self._flush)
        else:
            self._rest()

    def _run_alone(self, item: Item) -> None:
        """Run one request on the event loop: the common case there, without what batches need."""
        if item.future.done():
            return
        began = self._clock()
        if item.expires is not None and item.expires <= began:
            if item.deadline is not None and item.deadline <= began:
                self._refuse_late(item, began)
            else:
                delay(self._queue, item)
            return
        try:
            results = self._run(item.feed, item.outputs)
        except Exception as error:  # noqa: BLE001 whatever it is, who waits must be told
            _report(error)
            self._settle([([item], ExecutionFailed(_NOT_RUN), _NO_TIME)])
            return
        done = self._clock()
        if item.due is not None and item.due < done:
            self._settle([([item], [results], (item.rows, 0.0, done - began, 0.0))])
            return
        self.counters.ran_alone(item.rows, began - item.queued_at, done - began, done)
        item.future.set_result(results)

    def _waits_for_company(self) -> bool:
        """Set the timer for a batch that may still grow, and say so."""
        until = leaves_at(self._queue, self._max_rows, self._delay_s, self.counters.average_s)
        left_s = until - self._clock()
        if left_s <= 0 or self._loop is None:
            return False
        self._company = self._loop.call_later(left_s, self._flush)
        return True

    def _ring(self) -> None:
        now = self._clock()
        for item in self._queue:
            if item.deadline is not None and item.deadline <= now and not item.future.done():
                self._refuse_late(item, now)
        waiting = [item.deadline for item in self._queue if not item.future.done()]
        if deadlines := [deadline for deadline in waiting if deadline is not None]:
            self._alarm.set(min(deadlines))

    def _refuse_late(self, item: Item, now: float) -> None:
        self.counters.failed(Failure.DEADLINE, now - item.queued_at)
        item.future.set_exception(DeadlineExceeded("the deadline passed in the queue"))

    def _start(self, batch: list[Item], executor: Executor) -> None:
        self._busy += 1
        running = asyncio.get_running_loop().run_in_executor(executor, self._attempt, batch)
        running.add_done_callback(self._finish)

    def _finish(self, running: asyncio.Future[list[Part]]) -> None:
        self._busy -= 1
        self._settle(running.result())
        if self._queue and self._turn is None and self._company is None:
            # What came while the batch ran may still have to be read.
            self._turn = asyncio.get_running_loop().call_soon(self._gather)
        else:
            self._flush()

    def _attempt(self, batch: list[Item]) -> list[Part]:
        began = self._clock()
        try:
            feed = join(batch, pad=self._pad)
            joined = self._clock()
            results = self._run(feed, batch[0].outputs)
            ran = self._clock()
            answers = split(batch, results, self._trims)
        except Exception as error:  # noqa: BLE001 whatever it is, those who wait must be told
            if isinstance(error, RowsMixed):
                # It would fail with company every time: what follows runs alone.
                self._max_rows = 1
            _report(error)
            if len(batch) == 1:
                return [(batch, ExecutionFailed(_NOT_RUN), _NO_TIME)]
            # One caller's rows must not fail another's: halve the batch until they stand alone.
            middle = len(batch) // 2
            return self._attempt(batch[:middle]) + self._attempt(batch[middle:])
        rows = sum([item.rows for item in batch])
        done = self._clock()
        return [(batch, answers, (rows, joined - began, ran - joined, done - ran))]

    def _settle(self, parts: list[Part]) -> None:
        now = self._clock()
        for batch, answers, timing in parts:
            if isinstance(answers, ExecutionFailed):
                for item in batch:
                    self.counters.failed(Failure.EXECUTION, now - item.queued_at)
                    if not item.future.done():
                        item.future.set_exception(answers)
                continue
            total_s, late = 0.0, 0
            for item, answer in zip(batch, answers, strict=True):
                if item.due is not None and item.due < now:
                    late += 1
                    self.counters.failed(Failure.DEADLINE, now - item.queued_at)
                    if not item.future.done():
                        item.future.set_exception(DeadlineExceeded(_TOO_LATE))
                    continue
                total_s += now - item.queued_at
                if not item.future.done():
                    item.future.set_result(answer)
            self.counters.ran(timing, len(batch) - late, total_s, now)


def _report(error: Exception) -> None:
    if not isinstance(error, NodeError):
        # Its message may quote what the request holds; its type is the operator's to look up.
        logger.error("running a batch raised %s", type(error))
