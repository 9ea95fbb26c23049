"""Which metrics may be exposed, with the closed set of each label. Nothing else is."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from audit.cosigning import WitnessState
from audit.records import Action, Outcome, Problem
from bedside.held import Unread
from bedside.telemetry.dropped import Dropped, What
from inference_node.runtime import CPU, CUDA, TENSORRT
from inference_node.statistics import Failure
from policies.keeper import LoadProblem

DROPPED: Final = "bedside_telemetry_dropped"


VERSION_DIGITS_MAX: Final = 9

Fits = Callable[[str, Container[str]], bool]
"""Says whether a label may have a value, given the site's own names."""
Labels = Mapping[str, Fits]


def _words(*kinds: type[Enum], more: tuple[str, ...] = ()) -> Fits:
    words = frozenset(str(word.value) for kind in kinds for word in kind) | frozenset(more)
    return lambda value, _: value in words


def _name(value: str, names: Container[str]) -> bool:
    return value in names


def _bound(value: str, _: Container[str]) -> bool:
    return value == "+Inf" or value.replace(".", "", 1).isdecimal()


def _version(value: str, _: Container[str]) -> bool:
    # A folder's name in Triton's layout: a whole number.
    return value.isdecimal() and len(value) <= VERSION_DIGITS_MAX


_ACTION: Final = _words(Action)
_MODEL: Final[Labels] = {"model": _name}
_PLACEMENT: Final[Labels] = {"placement": _name}
_EXPORT: Final[Labels] = {"destination": _name, "log": _name}
_VERSION: Final[Labels] = {"model": _name, "version": _version}

METRICS: Final[Mapping[str, Labels]] = {
    DROPPED: {"what": _words(What)},
    "bedside_gateway_requests": {
        "action": _ACTION,
        "outcome": _words(Outcome),
        "problem": _words(Problem, more=("",)),
        **_PLACEMENT,
        **_MODEL,
    },
    "bedside_gateway_request_duration_seconds": {"action": _ACTION, "le": _bound},
    "bedside_gateway_requests_unrecorded": {},
    "bedside_gateway_requests_in_flight": _MODEL,
    "bedside_gateway_concurrency_limit": _MODEL,
    "bedside_gateway_node_ready": _PLACEMENT,
    "bedside_gateway_node_ejected": _PLACEMENT,
    "bedside_gateway_node_outstanding": _PLACEMENT,
    "bedside_gateway_device_channels": {},
    "bedside_gateway_connections_unread": {"why": _words(Unread)},
    "bedside_gateway_log_records": {},
    "bedside_gateway_log_published_records": {},
    "bedside_gateway_log_witness_state": {"witness": _name, "state": _words(WitnessState)},
    "bedside_gateway_export_lag_records": _EXPORT,
    "bedside_gateway_export_refused_records": _EXPORT,
    "bedside_gateway_policy_version": {},
    "bedside_gateway_policy_refusals": {"problem": _words(LoadProblem)},
    "bedside_gateway_shadow_decisions": {"state": _words(more=("worked_out", "left_out", "failed"))},
    "bedside_gateway_log_writable": {},
    "bedside_gateway_cache_requests": {"result": _words(more=("hit", "miss", "barred"))},
    "bedside_gateway_cache_stored": {},
    "bedside_gateway_cache_unreadable": {},
    "bedside_node_ready": {},
    "bedside_node_models": {"state": _words(more=("ready", "unavailable"))},
    "bedside_node_model_info": {**_VERSION, "execution_provider": _words(more=(CPU, CUDA, TENSORRT))},
    "bedside_node_requests": {**_VERSION, "outcome": _words(Failure, more=("served",))},
    "bedside_node_rows": _VERSION,
    "bedside_node_batch_rows": {**_VERSION, "le": _bound},
    "bedside_node_queue_depth": _VERSION,
    "bedside_node_queue_seconds": _VERSION,
    "bedside_node_compute_seconds": {**_VERSION, "stage": _words(more=("input", "infer", "output"))},
}


class ScreenedCollector(Collector):
    """Passes on what `METRICS` lists of other collectors, and says how much was dropped."""

    def __init__(
        self,
        collectors: Sequence[Collector],
        names: Container[str],
        dropped: Dropped,
    ) -> None:
        self._collectors = collectors
        self._names = names
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """Yield every family that is listed, with those of its samples whose labels are."""
        for collector in self._collectors:
            for family in collector.collect():
                labels = METRICS.get(family.name)
                kept = (
                    []
                    if labels is None
                    else [s for s in family.samples if self._fits(s.labels, labels)]
                )
                if len(kept) < len(family.samples):
                    self._dropped.add(What.SAMPLE, len(family.samples) - len(kept))
                    family.samples = kept
                if labels is not None:
                    yield family
        counts = CounterMetricFamily(
            DROPPED, "What was kept from leaving this process, as it is on no list", labels=["what"]
        )
        for what, count in self._dropped.counts().items():
            counts.add_metric([what.value], count)
        yield counts

    def _fits(self, found: Mapping[str, str], labels: Labels) -> bool:
        # A histogram's sum has no bound.
        return found.keys() | {"le"} == labels.keys() | {"le"} and all(
            labels[name](value, self._names) for name, value in found.items()
        )
