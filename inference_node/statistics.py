"""Counts what a model version did, as Triton's statistics extension reports it.

Source: triton-inference-server/server, docs/protocol/extension_statistics.md. The batcher adds a few
integers for each batch, nothing for each request; the report is put together when somebody asks.
"""

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Duration(Struct, frozen=True):
    """How many, and how long altogether, in nanoseconds."""

    count: Count = 0
    ns: Count = 0


class InferStatistics(Struct, frozen=True, kw_only=True):
    """What requests went through; each duration counts every request of a batch."""

    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStatistics(Struct, frozen=True, kw_only=True):
    """What batches of one size took."""

    batch_size: Count
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


class ModelStatistics(Struct, frozen=True, kw_only=True):
    """One model version; `last_inference` in milliseconds since the epoch, 0 for never.

    `inference_count` counts rows, `execution_count` runs of the model.
    """

    name: str
    version: str = ""
    last_inference: Count = 0
    inference_count: Count = 0
    execution_count: Count = 0
    inference_stats: InferStatistics = InferStatistics()
    batch_stats: tuple[BatchStatistics, ...] = ()


class Failure(StrEnum):
    """Why a request that came to a model was not answered."""

    DEADLINE = "deadline"
    EXECUTION = "execution"
    INPUT = "input"
    QUEUE_FULL = "queue-full"


Timing = tuple[int, float, float, float]
"""One run of the model: its rows, and seconds before, in and after the model."""

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds by which sizes are counted where each size of its own would be too many."""


class Counters:
    """What one model version did since it was loaded; owned by its batcher, on its event loop.

    A run is counted under its rows up to `max_rows`; a larger request, which runs alone, counts in the
    totals only, so that callers cannot fill memory with sizes.
    """

    __slots__ = (
        "_batches",
        "_fail_s",
        "_failures",
        "_larger",
        "_last_s",
        "_max_rows",
        "_more",
        "_rows",
        "_total_s",
        "average_s",
    )

    def __init__(self, max_rows: int) -> None:
        # By rows: runs, and their seconds before, in and after the model.
        self._batches: dict[int, list[float]] = {}
        self._larger: list[float] = [0, 0.0, 0.0, 0.0]
        # The same for each request of a batch beyond its first: how many, and their run's seconds.
        self._more: list[float] = [0, 0.0, 0.0, 0.0]
        self._max_rows = max_rows
        self._rows = 0
        self._total_s = 0.0
        self._failures: dict[Failure, int] = dict.fromkeys(Failure, 0)
        self._fail_s = 0.0
        self._last_s = 0.0
        self.average_s = 0.0
        """Moving average of what a run takes, in seconds; 0 before the first."""

    def ran(self, timing: Timing, requests: int, total_s: float, now: float) -> None:
        """Count one run that answered `requests`, which took `total_s` altogether since they came."""
        rows, before, within, after = timing
        counts = self._counts(rows)
        counts[0] += 1
        counts[1] += before
        counts[2] += within
        counts[3] += after
        others = requests - 1
        if others:
            more = self._more
            more[0] += others
            more[1] += others * before
            more[2] += others * within
            more[3] += others * after
        self._rows += rows
        self._total_s += total_s
        self._last_s = now
        self._learn(before + within + after)

    def ran_alone(self, rows: int, waited_s: float, within_s: float, now: float) -> None:
        """Count one run of one request that was neither joined nor split."""
        counts = self._batches.get(rows) or self._counts(rows)
        counts[0] += 1
        counts[2] += within_s
        self._rows += rows
        self._total_s += waited_s + within_s
        self._last_s = now
        average_s = self.average_s
        self.average_s = average_s + 0.2 * (within_s - average_s) if average_s else within_s

    def failed(self, failure: Failure, waited_s: float = 0.0) -> None:
        """Count one request that was accepted by the model's server and not answered."""
        self._failures[failure] += 1
        self._fail_s += waited_s

    def failures(self) -> Mapping[Failure, int]:
        """Return how many requests were not answered, by reason."""
        return dict(self._failures)

    def sizes(self) -> list[tuple[int, int]]:
        """Return how many runs had at most so many rows, for each of BATCH_SIZES."""
        runs = [(rows, int(counts[0])) for rows, counts in self._batches.items()]
        return [(bound, sum(count for rows, count in runs if rows <= bound)) for bound in BATCH_SIZES]

    def seconds(self) -> tuple[float, float, float]:
        """Return how long all runs took before, in and after the model."""
        every = [*self._batches.values(), self._larger]
        before, within, after = (sum(counts[column] for counts in every) for column in (1, 2, 3))
        return before, within, after

    def report(self, name: str, version: str) -> ModelStatistics:
        """Return all that was counted."""
        every = [*self._batches.values(), self._larger]
        runs, *_ = (sum(counts[column] for counts in every) for column in range(4))
        count, before, within, after = (
            sum(counts[column] for counts in every) + self._more[column] for column in range(4)
        )
        waited = max(self._total_s - before - within - after, 0.0)
        answered = int(count)
        last_ms = int((time.time() - (time.monotonic() - self._last_s)) * 1000) if self._last_s else 0
        return ModelStatistics(
            name=name,
            version=version,
            last_inference=last_ms,
            inference_count=self._rows,
            execution_count=int(runs),
            inference_stats=InferStatistics(
                success=_duration(answered, self._total_s),
                fail=_duration(sum(self._failures.values()), self._fail_s),
                queue=_duration(answered, waited),
                compute_input=_duration(answered, before),
                compute_infer=_duration(answered, within),
                compute_output=_duration(answered, after),
            ),
            batch_stats=_by_size(self._batches),
        )

    def _counts(self, rows: int) -> list[float]:
        if rows > self._max_rows:
            return self._larger
        return self._batches.setdefault(rows, [0, 0.0, 0.0, 0.0])

    def _learn(self, taken_s: float) -> None:
        average_s = self.average_s
        self.average_s = average_s + 0.2 * (taken_s - average_s) if average_s else taken_s


def _duration(count: int, seconds: float) -> Duration:
    return Duration(count, int(seconds * 1e9))


def _by_size(batches: Mapping[int, list[float]]) -> tuple[BatchStatistics, ...]:
    return tuple(
        BatchStatistics(
            batch_size=rows,
            compute_input=_duration(int(counts[0]), counts[1]),
            compute_infer=_duration(int(counts[0]), counts[2]),
            compute_output=_duration(int(counts[0]), counts[3]),
        )
        for rows, counts in sorted(batches.items())
    )
