"""What must hold in any interleaving of requests, cancellations, runs, failures and deadlines.

Time is virtual, so every interleaving is exact and a hang shows as an error. Each property was seen to
fail: with `queue.append` for `enqueue` (order), `start = 0` in `split` or `item.rows + 1` (rows),
`batch, late = ...` without the `popleft` of cancelled items (cancelled ones run), `_flush` without its
loop (idle executor), without `_wake_by` (late refusals), `_settle` without `item.due` (served late),
`runs` one less (refused for nothing), `>` for `>=` at the full queue, `_rest` left out (drain).
"""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.virtual_time import VirtualExecutor, run_virtually

from inference_node import DeadlineExceeded, ExecutionFailed, InputInvalid, QueueFull
from inference_node.batch import QueuePolicy, Ragged
from inference_node.batcher import Batcher

PRECISION_S = 1e-6


@dataclass
class Asked:
    """One request of a plan, and what became of it."""

    number: int
    rows: int
    width: int
    gap_s: float | None
    priority: int
    slack_s: float | None
    timeout_s: float
    poisoned: bool
    cancel_after_s: float | None
    at: float = 0.0
    future: asyncio.Future | None = None
    begun_at: float | None = None
    ended_at: float | None = None
    runs: int = 0
    refused: type[Exception] | None = None

    @property
    def due(self):
        return None if self.slack_s is None else self.at + self.slack_s

    @property
    def waits(self):
        return self.future is not None and not self.future.done() and self.begun_at is None


@dataclass
class Site:
    """How a batcher is configured."""

    max_rows: int
    queue_size: int
    instances: int
    inline: bool
    delay_s: float
    levels: int
    ragged: Ragged
    delays_late: bool
    durations_s: list[float]
    plan: list[Asked] = field(default_factory=list)


# Multiples of powers of two: sums of them are exact. Queues and batches only form where requests come
# at one time and few of them have troubles, so most of a plan is that.
moments = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])
durations = st.sampled_from([1.0, 2.5, 0.25])


def seldom(strategy, usually=None, times=3):
    return st.one_of(*[st.just(usually)] * times, strategy)


@st.composite
def requests(draw, *, deadlines=True, cancels=True, poison=True, widths=(2, 2, 2, 1, 3)):
    return Asked(
        number=0,
        rows=draw(st.integers(1, 3)),
        width=draw(st.sampled_from(widths)),
        gap_s=draw(seldom(moments)),
        priority=draw(st.integers(0, 4)),
        slack_s=draw(seldom(st.sampled_from([-1.0, 0.5, 2.0, 6.0]))) if deadlines else None,
        timeout_s=draw(seldom(st.just(0.75), 0.0)) if deadlines else 0.0,
        poisoned=poison and draw(seldom(st.just(True), False, 9)),
        cancel_after_s=draw(seldom(moments, times=5)) if cancels else None,
    )


@st.composite
def sites(draw, **of_requests):
    delays_late = draw(st.booleans())
    site = Site(
        max_rows=draw(st.sampled_from([4, 8, 1])),
        queue_size=draw(st.sampled_from([64, 4, 2])),
        instances=draw(st.sampled_from([1, 1, 2, 3])),
        inline=draw(seldom(st.just(True), False, 2)),
        delay_s=draw(seldom(st.just(0.5), 0.0, 2)),
        levels=draw(st.sampled_from([0, 3])),
        ragged=draw(st.sampled_from([Ragged.SEPARATE, Ragged.PAD])),
        delays_late=delays_late,
        durations_s=draw(st.lists(durations, min_size=1, max_size=4)),
        plan=draw(st.lists(requests(**of_requests), min_size=1, max_size=20)),
    )
    for number, asked in enumerate(site.plan, 1):
        asked.number = number
    return site


class World:
    """Runs a plan against a batcher and watches."""

    def __init__(self, site, loop):
        self.site = site
        self.loop = loop
        self.batches = []
        self.durations_s = iter(site.durations_s * 1000)
        self.executor = VirtualExecutor(loop, lambda: next(self.durations_s))
        self.executor.started = self.begun
        self.clock = loop.time if site.inline else self.executor.clock
        self.to = Batcher(
            self.run,
            max_rows=site.max_rows,
            max_queue_size=site.queue_size,
            executor=None if site.inline else self.executor,
            beyond=self.executor if site.inline else None,
            instances=site.instances,
            policy=QueuePolicy(
                max_queue_delay_s=site.delay_s,
                priority_levels=site.levels,
                default_priority=2 if site.levels else 0,
                delays_late=site.delays_late,
            ),
            ragged=site.ragged,
            trims={"y": [(1, "x", 1)]},
            clock=self.clock,
        )
        self.by_future = {}
        self.problems = []
        loop.on_quiet = self.quiet

    def begun(self, batch):
        now = self.loop.now
        began = [self.by_future[item.future] for item in batch]
        self.batches.append(began)
        for asked in began:
            assert not asked.future.done(), "cancelled or refused, and begun"
            assert asked.begun_at is None, "begun twice"
            asked.begun_at = now
        rows = sum(asked.rows for asked in began)
        assert rows <= self.site.max_rows or len(began) == 1
        if not self.site.delays_late:
            left = [asked for asked in self.site.plan if asked.waits]
            last = max(map(self.rank, began))
            assert all(self.rank(asked) > last for asked in left), "overtaken"

    def rank(self, asked):
        levels = self.site.levels
        priority = asked.priority if 0 < asked.priority <= levels else 2
        return (priority if levels else 0, asked.number)

    def run(self, feed, outputs):
        x = feed["x"]
        if self.site.inline and not self.executor.at_work:
            self.loop.now += next(self.durations_s)
        else:
            self.executor.work()
        if (x < 0).any():
            raise ExecutionFailed("poisoned")
        for number in {int(row[0]) for row in x}:
            self.site.plan[number - 1].runs += 1
        return [x * 2]

    def quiet(self):
        """Nothing is left to run at this moment: what must hold then."""
        waiting = [asked for asked in self.site.plan if asked.waits]
        if waiting and not self.site.inline and self.executor.running < self.site.instances:
            waited_s = self.loop.now - min(asked.at for asked in waiting)
            assert waited_s < self.site.delay_s, "an idle executor waits"
        for asked in waiting:
            assert asked.due is None or asked.due > self.loop.now - PRECISION_S, "left in the dark"
        assert len(self.to._queue) <= self.site.queue_size

    async def follow(self, asked):
        now = asked.at = self.clock()
        waiting = [other for other in self.site.plan if other.waits]
        queued = len(self.to._queue)
        busy = self.to._busy >= (1 if self.site.inline else self.site.instances)
        value = -1.0 if asked.poisoned else float(asked.number)
        x = np.full((asked.rows, asked.width), value, np.float32)
        try:
            asked.future = self.to.submit(
                {"x": x},
                ("y",),
                asked.rows,
                asked.due,
                priority=asked.priority,
                timeout_s=asked.timeout_s,
            )
        except (QueueFull, DeadlineExceeded, InputInvalid) as refusal:
            asked.refused = type(refusal)
            if isinstance(refusal, QueueFull):
                assert queued >= self.site.queue_size
            else:
                self.check_hopeless(asked, waiting, busy, now)
            return
        assert queued < self.site.queue_size or any(o.future.done() for o in self.by_future.values())
        self.by_future[asked.future] = asked
        if asked.future.done():
            # It ran at once. Whoever awaits it goes on in this turn, a callback in the next.
            self.ended(asked, asked.future)
        else:
            asked.future.add_done_callback(lambda future: self.ended(asked, future))
        if asked.cancel_after_s is not None:
            self.loop.call_later(asked.cancel_after_s, asked.future.cancel)

    def ended(self, asked, future):
        asked.ended_at = self.clock()
        if not future.cancelled():
            future.exception()

    def check_hopeless(self, asked, waiting, busy, now):
        if asked.due is None or asked.due <= now or len(set(self.site.durations_s)) > 1:
            return
        assert waiting or busy, "refused by an idle model"
        (duration_s,) = set(self.site.durations_s)
        ahead = sum(
            min(other.rows, self.site.max_rows)
            for other in waiting
            if self.rank(other)[0] <= self.rank(asked)[0]
        )
        turns = ahead // self.site.max_rows // (1 if self.site.inline else self.site.instances)
        limits = [asked.due - duration_s]
        if asked.timeout_s and not self.site.delays_late:
            limits.append(now + asked.timeout_s)
        assert now + turns * duration_s > min(limits) - PRECISION_S, "refused for nothing"


def play(site):
    """Follow the plan, drain, and return the world at its end."""
    worlds = []

    async def main(loop):
        world = World(site, loop)
        worlds.append(world)
        for asked in site.plan:
            if asked.gap_s is not None:
                await asyncio.sleep(asked.gap_s)
            await world.follow(asked)
        await world.to.drain()
        await asyncio.sleep(0)
        assert not world.to._queue
        assert world.executor.running == 0

    run_virtually(main)
    return worlds[0]


@settings(max_examples=200)
@given(sites())
def test_every_request_is_answered_once_with_its_own_rows_or_told_why_not(site):
    play(site)
    for asked in site.plan:
        if asked.future is None:
            assert asked.refused is not None
            assert asked.runs == 0
            continue
        assert asked.future.done(), "lost"
        assert asked.runs <= 1, "run twice"
        if asked.future.cancelled():
            assert asked.cancel_after_s is not None
            continue
        error = asked.future.exception()
        if isinstance(error, DeadlineExceeded):
            assert asked.due is not None or asked.timeout_s
        elif error is not None:
            assert isinstance(error, ExecutionFailed)
            assert asked.poisoned, "failed by another's row"
        else:
            (answer,) = asked.future.result()
            assert not asked.poisoned
            assert answer.shape == (asked.rows, asked.width)
            assert (answer == 2.0 * asked.number).all(), "another's row"


@settings(max_examples=200)
@given(sites())
def test_nothing_is_served_past_its_deadline_and_whoever_waits_in_vain_is_told_then(site):
    play(site)
    for asked in site.plan:
        if asked.future is None or asked.future.cancelled() or asked.due is None:
            continue
        if asked.future.exception() is None:
            assert asked.ended_at <= asked.due + PRECISION_S, "served late"
        elif isinstance(asked.future.exception(), DeadlineExceeded) and not site.inline:
            assert asked.begun_at is not None or asked.ended_at <= asked.due + PRECISION_S, "told late"


@settings(max_examples=200)
@given(sites(deadlines=False, cancels=False, poison=False))
def test_without_limits_or_failures_everything_that_was_let_in_is_served(site):
    play(site)
    for asked in site.plan:
        if asked.refused is not None:
            assert asked.refused is QueueFull
        else:
            assert asked.future.exception() is None
            assert asked.runs == 1


@settings(max_examples=200)
@given(sites(cancels=False, poison=False, widths=(2,)), durations)
def test_only_what_cannot_be_done_in_time_is_refused_at_once(site, duration_s):
    site.durations_s = [duration_s]
    play(site)  # `check_hopeless` looks at every refusal


def test_an_answer_that_would_come_late_is_refused_although_the_model_ran():
    async def main(loop):
        executor = VirtualExecutor(loop, lambda: 2.0)

        def run(feed, outputs):
            executor.work()
            return [feed["x"]]

        to = Batcher(run, max_rows=8, max_queue_size=8, executor=executor, clock=executor.clock)
        feed = {"x": np.ones((1, 1), np.float32)}
        # An idle model with nothing learned takes it, and so it does the next time.
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match="before the model was done"):
                await to.submit(feed, ("y",), 1, loop.now + 1)
        running = to.submit(feed, ("y",), 1, loop.now + 3)
        await asyncio.sleep(0)
        # One run is ahead now, and it takes two seconds: this one cannot make three, that one four.
        with pytest.raises(DeadlineExceeded, match="cannot be done"):
            to.submit(feed, ("y",), 1, loop.now + 1.9)
        waiting = to.submit(feed, ("y",), 1, loop.now + 4)
        await asyncio.gather(running, waiting)

    run_virtually(main)


def test_whoever_was_answered_goes_on_before_the_next_run_also_when_it_drains():
    """Seen to fail where a turn that was due ran beside the one that `drain` had begun."""
    told = []

    async def main(loop):
        def run(feed, outputs):
            loop.now += 1.0
            return [feed["x"]]

        policy = QueuePolicy(max_queue_delay_s=0.5)
        to = Batcher(run, max_rows=8, max_queue_size=8, executor=None, policy=policy, clock=loop.time)
        for width in (1, 2, 3):  # of shapes that do not run together
            future = to.submit({"x": np.ones((1, width), np.float32)}, ("y",), 1)
            future.add_done_callback(lambda _: told.append(loop.now - began))
            if width == 1:
                await asyncio.sleep(0.25)  # in which it waits for company
        began = loop.now
        await to.drain()

    run_virtually(main)
    assert told == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        # Each with its priority, and in lower case if its time in the queue passes before its turn.
        (["a1", "B1", "C2", "D3"], ["B1", "a1", "C2", "D3"]),
        (["a1", "C2", "D3"], ["a1", "C2", "D3"]),
        (["c2", "D2", "e3", "F3", "a1"], ["a1", "D2", "c2", "F3", "e3"]),
        (["a1", "b1", "C2"], ["a1", "b1", "C2"]),
    ],
)
@pytest.mark.parametrize("rows", [1, 8])
def test_a_delayed_request_waits_for_its_own_priority_and_higher_ones_only(asked, order, rows):
    began = []

    async def main(loop):
        executor = VirtualExecutor(loop, lambda: 1.0)

        def run(feed, outputs):
            executor.work()
            began.extend(int(value) for value in feed["x"][:, 0])
            return [feed["x"]]

        to = Batcher(
            run,
            max_rows=rows,
            max_queue_size=8,
            executor=executor,
            policy=QueuePolicy(priority_levels=3, default_priority=2, delays_late=True),
            clock=executor.clock,
        )

        def submit(number, name):
            feed = {"x": np.full((1, 1), number, np.float32)}
            timeout_s = 0.75 if name.islower() else 0.0
            return to.submit(feed, ("y",), 1, priority=int(name[1]), timeout_s=timeout_s)

        running = submit(-1, "A1")
        await asyncio.sleep(0)
        await asyncio.gather(running, *(submit(n, name) for n, name in enumerate(asked)))

    run_virtually(main)
    assert [asked[number] for number in began[1:]] == order


def test_a_queue_of_cancelled_requests_is_not_full():
    async def main(loop):
        executor = VirtualExecutor(loop, lambda: 1.0)
        to = Batcher(lambda feed, _: [feed["x"]], max_rows=1, max_queue_size=2, executor=executor)
        feed = {"x": np.ones((1, 1), np.float32)}
        running = to.submit(feed, ("y",), 1)
        await asyncio.sleep(0)
        gone = [to.submit(feed, ("y",), 1) for _ in range(2)]
        with pytest.raises(QueueFull):
            to.submit(feed, ("y",), 1)
        await running
        await asyncio.sleep(0)
        gone[1].cancel()
        gone.append(to.submit(feed, ("y",), 1))
        for future in gone:
            future.cancel()
        assert to.waiting == 0
        await to.submit(feed, ("y",), 1)

    run_virtually(main)


def test_one_poisoned_request_costs_a_few_runs_and_not_one_for_each():
    sizes = []

    def run(feed, outputs):
        sizes.append(len(feed["x"]))
        if (feed["x"] < 0).any():
            raise ExecutionFailed("poisoned")
        return [feed["x"]]

    async def main(loop):
        to = Batcher(run, max_rows=64, max_queue_size=64, executor=None, clock=loop.time)
        values = np.ones(64, np.float32)
        values[37] = -1
        answers = await asyncio.gather(
            *(to.submit({"x": np.full((1, 1), value)}, ("y",), 1) for value in values),
            return_exceptions=True,
        )
        failed = [n for n, answer in enumerate(answers) if isinstance(answer, ExecutionFailed)]
        assert failed == [37]
        assert len(sizes) == 13

    run_virtually(main)


def test_a_model_that_mixes_rows_is_not_given_company_again():
    sizes = []

    def run(feed, outputs):
        sizes.append(len(feed["x"]))
        return [feed["x"].sum(axis=0, keepdims=True)]

    async def main(loop):
        to = Batcher(run, max_rows=4, max_queue_size=64, executor=None, clock=loop.time)
        feed = {"x": np.ones((1, 1), np.float32)}
        for _ in range(2):
            await asyncio.gather(*(to.submit(feed, ("y",), 1) for _ in range(4)))
        assert sizes == [4, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1]

    run_virtually(main)


def test_one_long_request_is_not_padded_onto_many_short_ones():
    shapes = []

    def run(feed, outputs):
        shapes.append(feed["x"].shape)
        return [feed["x"]]

    async def main(loop):
        to = Batcher(
            run,
            max_rows=64,
            max_queue_size=64,
            executor=None,
            ragged=Ragged.PAD,
            trims={"y": [(1, "x", 1)]},
            clock=loop.time,
        )
        lengths = [10, 12, 100_000, 11, 9]
        answers = await asyncio.gather(
            *(to.submit({"x": np.ones((1, n), np.float32)}, ("y",), 1) for n in lengths)
        )
        assert [answer.shape for (answer,) in answers] == [(1, n) for n in lengths]
        assert shapes == [(2, 12), (2, 100_000), (1, 9)]

    run_virtually(main)


def test_a_ragged_request_is_refused_only_while_another_shape_waits():
    async def main(loop):
        executor = VirtualExecutor(loop, lambda: 1.0)
        to = Batcher(
            lambda feed, _: [feed["x"]],
            max_rows=4,
            max_queue_size=8,
            executor=executor,
            ragged=Ragged.REFUSE,
        )

        def submit(width):
            return to.submit({"x": np.ones((1, width), np.float32)}, ("y",), 1)

        first = submit(1)
        await asyncio.sleep(0)
        second = submit(2)  # runs after the first, never with it
        with pytest.raises(InputInvalid, match="different shapes"):
            submit(3)
        second.cancel()
        await asyncio.gather(first, submit(3))

    run_virtually(main)


def test_draining_ends_the_wait_for_company():
    async def main(loop):
        to = Batcher(
            lambda feed, _: [feed["x"]],
            max_rows=4,
            max_queue_size=8,
            executor=None,
            policy=QueuePolicy(max_queue_delay_s=5.0),
            clock=loop.time,
        )
        started = loop.now
        future = to.submit({"x": np.ones((1, 1), np.float32)}, ("y",), 1)
        await asyncio.sleep(1)
        assert not future.done()
        await to.drain()
        assert future.done()
        assert loop.now == started + 1

    run_virtually(main)
