"""Summaries take no more of a core than a request may have, and none is served late."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
from support.forecasts import NORMAL, ONE, ask, entry, serving

from inference_node import DeadlineExceeded, InferRequest, InputInvalid, Tensor, distributions
from inference_node import allowance as allowance_module
from inference_node import summaries as summaries_module

HOW_TO = Path(__file__).parents[2] / "docs/how-to/probabilistic-outputs.md"
MIXTURE = entry("glucose", "mixture_normal probs=w loc=m scale=s")
OF_FOUR = {"w": 4, "m": 4, "s": 4}


def mixtures(count):
    values = np.tile(np.float32([1, 2, 3, 4, -1, 0, 1, 2, 1, 2, 1, 2]), (count, 1))
    return [Tensor(name="x", datatype="FP32", shape=values.shape, array=values)]


async def test_what_costs_more_is_refused_where_fewer_numbers_are_asked_for(tmp_path):
    levels = ",".join(str(level / 129) for level in range(1, 129))
    async with serving(tmp_path, MIXTURE, **OF_FOUR) as node:
        with pytest.raises(InputInvalid, match=r"about 0\.5 s; ask for fewer"):
            await ask(node, inputs=mixtures(1000), quantiles=levels)
        answer = await ask(node, inputs=mixtures(10), quantiles=levels)
        assert answer["glucose.quantiles"].shape == (10, 128)


class Clock:
    """Stands in for `time`: asked `turns` times, the deadline, or a core's second, has passed."""

    def __init__(self, turns, *, of_core=False):
        self.turns = turns
        self.of_core = of_core
        self.past = False

    def _told(self, counts):
        self.turns -= counts
        self.past |= self.turns < 0
        return 1e18 if counts and self.turns < 0 else 0.0

    def monotonic(self):
        return self._told(not self.of_core)

    def thread_time(self):
        return self._told(self.of_core)


LATER = 1e9


@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("streams", [False, True])
async def test_nothing_that_is_computed_is_served_late(tmp_path, monkeypatch, turns, count, streams):
    """Not begun, or ended between two steps, on the event loop and off it."""
    async with serving(tmp_path, MIXTURE, **OF_FOUR) as node:
        request = InferRequest(inputs=mixtures(count), parameters={"quantiles": "0.1"})
        clock = Clock(turns)
        monkeypatch.setattr(allowance_module, "time", clock)
        with pytest.raises(DeadlineExceeded, match="before all that is asked for was computed"):
            await anext(node.stream("forecast", None, request, LATER)) if streams else await node.infer(
                "forecast", None, request, LATER
            )
        assert clock.past


async def test_what_was_computed_a_moment_too_late_is_not_served(tmp_path, monkeypatch):
    async with serving(tmp_path, NORMAL) as node:
        clock = Clock(1000)
        real = summaries_module.answer

        def slow(*arguments):
            tensors = real(*arguments)
            clock.turns = 0
            return tensors

        monkeypatch.setattr(allowance_module, "time", clock)
        monkeypatch.setattr(summaries_module, "answer", slow)
        request = InferRequest(inputs=ONE, parameters={"quantiles": "0.5"})
        with pytest.raises(DeadlineExceeded):
            await node.infer("forecast", None, request, LATER)


async def test_parameters_that_take_longer_than_any_are_given_up_after_a_second_of_a_core(
    tmp_path, monkeypatch
):
    async with serving(tmp_path, MIXTURE, **OF_FOUR) as node:
        monkeypatch.setattr(allowance_module, "time", Clock(9, of_core=True))
        with pytest.raises(InputInvalid, match="takes more than 1 s; ask for fewer"):
            await ask(node, inputs=mixtures(300), quantiles="0.1,0.5")


async def test_who_leaves_has_nothing_computed_further(tmp_path, monkeypatch):
    begun, ended, stop = asyncio.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def endless(asked, results, allowance):
        loop.call_soon_threadsafe(begun.set)
        while not stop.is_set():
            try:
                allowance.check_deadline()
            except DeadlineExceeded:
                loop.call_soon_threadsafe(ended.set)
                raise

    monkeypatch.setattr(summaries_module, "answer", endless)
    async with serving(tmp_path, MIXTURE, **OF_FOUR) as node:
        asking = asyncio.ensure_future(ask(node, inputs=mixtures(300), quantiles="0.1,0.5"))
        try:
            await begun.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(ended.wait(), 20)
        finally:
            stop.set()


def test_the_how_to_says_how_many_numbers_a_request_may_have_computed():
    text = HOW_TO.read_text()
    assert f"{summaries_module.CELLS_MAX:,} numbers" in text
    for name, family in distributions.FAMILIES.items():
        most = summaries_module.COST_MAX_NS // family.cost_ns
        if most < summaries_module.CELLS_MAX:
            said = f"{most // 1000:,},000"
            assert f"`{name}` {said}" in text or f"`{name}`\n  {said}" in text, name
