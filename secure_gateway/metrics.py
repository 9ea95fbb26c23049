"""What a gateway says of itself to Prometheus: put together from plain counters when it is scraped.

Labels come from closed sets: actions, outcomes, problems, the site's placements and models.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from audit import AuditError, Log
from audit.cosigning import WitnessState
from audit.export import ExportState
from policies import BundleKeeper, LoadProblem
from secure_gateway.admission import Door
from secure_gateway.cache import ResponseCache
from secure_gateway.channel import DeviceHub
from secure_gateway.counting import DURATION_BOUNDS_S, RequestCounters
from secure_gateway.nodes import SiteNode
from secure_gateway.shadow import Shadow

logger = logging.getLogger(__name__)


class GatewayCollector(Collector):
    """Collects the metrics of one gateway replica."""

    def __init__(
        self,
        *,
        requests: RequestCounters,
        door: Door,
        nodes: Mapping[str, SiteNode],
        hub: DeviceHub,
        log: Log,
        cache: ResponseCache | None,
        policies: BundleKeeper,
        shadow: Shadow,
        exports: Callable[[], Iterable[ExportState]],
        unread: Mapping[str, Sized],
    ) -> None:
        self._requests = requests
        self._door = door
        self._nodes = nodes
        self._hub = hub
        self._log = log
        self._cache = cache
        self._policies = policies
        self._shadow = shadow
        self._exports = exports
        self._unread = unread

    def collect(self) -> Iterator[Metric]:
        """Yield every family of metrics, also where it has no sample yet."""
        yield from _of_requests(self._requests)
        yield from _of_models(self._door)
        yield from _of_nodes(self._nodes)
        yield from _of_cache(self._cache)
        yield from _of_policies(self._policies, self._shadow)
        yield GaugeMetricFamily(
            "bedside_gateway_device_channels", "Devices that are connected", value=self._hub.count
        )
        unread = GaugeMetricFamily(
            "bedside_gateway_connections_unread",
            "Connections left unread for a while: a crowd in shifts, or who asked on once refused",
            labels=["why"],
        )
        for why, connections in self._unread.items():
            unread.add_metric([why], len(connections))
        yield unread
        yield GaugeMetricFamily(
            "bedside_gateway_log_records", "Records in this replica's log", value=self._log.size
        )
        yield GaugeMetricFamily(
            "bedside_gateway_log_writable",
            "1 if the log takes records, else 0: nothing is served then",
            value=self._log.writable,
        )
        yield from _of_witnesses(self._log)
        yield from _of_exports(self._exports)


def _of_witnesses(log: Log) -> Iterator[Metric]:
    published = log.published
    yield GaugeMetricFamily(
        "bedside_gateway_log_published_records",
        "Records that the published checkpoint covers; with witnesses, those that they cosigned",
        value=0 if published is None else published.size,
    )
    cosigned = GaugeMetricFamily(
        "bedside_gateway_log_witness_state",
        "1 for how a witness answered last, else 0",
        labels=["witness", "state"],
    )
    for name, current in log.witness_states.items():
        for state in WitnessState:
            cosigned.add_metric([name, state.value], state is current)
    yield cosigned


def _of_exports(exports: Callable[[], Iterable[ExportState]]) -> Iterator[Metric]:
    labels = ["destination", "log"]
    lag = GaugeMetricFamily(
        "bedside_gateway_export_lag_records",
        "Published records of this machine's logs that a destination of the export has yet to take",
        labels=labels,
    )
    refused = GaugeMetricFamily(
        "bedside_gateway_export_refused_records",
        "Records that a destination of the export answered that it will never take",
        labels=labels,
    )
    try:
        for state in exports():
            lag.add_metric([state.destination, state.log], state.lag)
            refused.add_metric([state.destination, state.log], state.refused)
    except AuditError as error:
        # The rest of the metrics must not fall silent with it.
        logger.warning("how far the export got is not known: %s", error)
    yield from (lag, refused)


def _of_policies(policies: BundleKeeper, shadow: Shadow) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "bedside_gateway_policy_version",
        "Version of the policy bundle in force",
        value=policies.engine.bundle.version,
    )
    refusals = CounterMetricFamily(
        "bedside_gateway_policy_refusals", "Policy bundles that were not taken", labels=["problem"]
    )
    for problem in LoadProblem:
        refusals.add_metric([problem.value], policies.refusals.get(problem, 0))
    yield refusals
    decisions = GaugeMetricFamily(
        "bedside_gateway_shadow_decisions",
        "Decisions of the candidate in the shadow since it was taken: worked out, left out for want of"
        " time, or failed",
        labels=["state"],
    )
    for state in ("worked_out", "left_out", "failed"):
        decisions.add_metric([state], getattr(shadow, state))
    yield decisions


def _of_requests(counters: RequestCounters) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "bedside_gateway_requests",
        "Recorded requests, by what was asked and what became of it",
        labels=["action", "outcome", "problem", "placement", "model"],
    )
    for (action, outcome, problem, placement, model), count in counters.requests.items():
        requests.add_metric([action, outcome, problem or "", placement or "", model or ""], count)
    yield requests
    durations = HistogramMetricFamily(
        "bedside_gateway_request_duration_seconds",
        "Time from a request's first byte to its record, in seconds",
        labels=["action"],
    )
    for action, (*counts, total_us) in counters.durations.items():
        bounds: Iterable[str] = (*map(str, DURATION_BOUNDS_S), "+Inf")
        buckets = list(zip(bounds, accumulate(counts), strict=True))
        durations.add_metric([action], buckets, total_us / 1e6)
    yield durations
    yield CounterMetricFamily(
        "bedside_gateway_requests_unrecorded",
        "Requests that were refused because the log could not be written",
        value=counters.unrecorded,
    )


def _of_models(door: Door) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily(
        "bedside_gateway_requests_in_flight", "Requests under way now", labels=["model"]
    )
    limit = GaugeMetricFamily(
        "bedside_gateway_concurrency_limit", "Requests that may be under way at once", labels=["model"]
    )
    for model, state in door.limits().items():
        in_flight.add_metric([model], state.under_way)
        limit.add_metric([model], state.limit)
    yield from (in_flight, limit)


def _of_nodes(nodes: Mapping[str, SiteNode]) -> Iterator[Metric]:
    ready = GaugeMetricFamily(
        "bedside_gateway_node_ready", "1 if the node answers probes, else 0", labels=["placement"]
    )
    ejected = GaugeMetricFamily(
        "bedside_gateway_node_ejected",
        "1 if the node is left alone because it kept failing, else 0",
        labels=["placement"],
    )
    outstanding = GaugeMetricFamily(
        "bedside_gateway_node_outstanding", "Requests that the node works on", labels=["placement"]
    )
    for placement, node in nodes.items():
        ready.add_metric([placement], node.ready)
        ejected.add_metric([placement], node.health.ejected)
        outstanding.add_metric([placement], node.outstanding)
    yield from (ready, ejected, outstanding)


def _of_cache(cache: ResponseCache | None) -> Iterator[Metric]:
    asked = CounterMetricFamily(
        "bedside_gateway_cache_requests",
        "Requests that the response cache was asked about; barred ones may not be kept",
        labels=["result"],
    )
    stored = CounterMetricFamily("bedside_gateway_cache_stored", "Answers that the cache took")
    unreadable = CounterMetricFamily(
        "bedside_gateway_cache_unreadable", "Kept answers that did not open; each is a miss too"
    )
    if cache is not None:
        counters = cache.counters
        for result, count in (
            ("hit", counters.hits),
            ("miss", counters.misses),
            ("barred", counters.barred),
        ):
            asked.add_metric([result], count)
        stored.add_metric([], counters.stored)
        unreadable.add_metric([], counters.unreadable)
    yield from (asked, stored, unreadable)
