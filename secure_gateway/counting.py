"""Counts the requests that were recorded, for metrics: a few additions for each, nothing more.

Labels are taken from records, so they are from closed sets. A device is counted as `device`: which one
it was is nobody's business who reads metrics.
"""

from bisect import bisect_left
from typing import Final

from audit.records import RefusalsRecord, RequestRecord

DURATION_BOUNDS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper bounds of the histogram of durations, in seconds."""

_BOUNDS_US: Final = tuple(int(bound * 1e6) for bound in DURATION_BOUNDS_S)
_DEVICE: Final = "device:"

Labels = tuple[str, str, str | None, str | None, str | None]
"""Action, outcome, problem, placement and model of requests that are counted together."""


class RequestCounters:
    """What became of the requests of one gateway since it started; owned by its recorder."""

    def __init__(self) -> None:
        self.requests: dict[Labels, int] = {}
        # By action: requests in each bucket, one more for those above all bounds; microseconds last.
        self.durations: dict[str, list[int]] = {}
        self.unrecorded = 0

    def count(self, record: RequestRecord, labels: Labels | None = None) -> None:
        """Count one request; `labels` are its own, where they are known already."""
        if labels is None:
            labels = labels_of(record)
        requests = self.requests
        requests[labels] = requests.get(labels, 0) + 1
        duration_us = record.duration_us
        if duration_us is None:
            return
        durations = self.durations.get(labels[0])
        if durations is None:
            durations = self.durations[labels[0]] = [0] * (len(_BOUNDS_US) + 2)
        durations[bisect_left(_BOUNDS_US, duration_us)] += 1
        durations[-1] += duration_us

    def count_refusals(self, record: RefusalsRecord) -> None:
        """Count the requests that share a record; how long each took is not known."""
        labels = (
            record.action.value,
            record.outcome.value,
            record.problem.value,
            None,
            record.model,
        )
        self.requests[labels] = self.requests.get(labels, 0) + record.count


def labels_of(record: RequestRecord) -> Labels:
    """Return what a request is counted under."""
    placement, problem = record.placement, record.problem
    if placement is not None and placement.startswith(_DEVICE):
        placement = "device"
    # Plain text: an enum's hash is Python's work, three of them a microsecond.
    return (
        record.action.value,
        record.outcome.value,
        None if problem is None else problem.value,
        placement,
        record.model,
    )
