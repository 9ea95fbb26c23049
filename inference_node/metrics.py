"""What a node says of itself to Prometheus: put together from plain counters when it is scraped.

Labels come from closed sets: the repository's own models and versions, execution providers, outcomes.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from inference_node.loading import LoadedModel
from inference_node.node import Node

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4.encode()
"""The media type of an exposition."""

_MODEL: Final = ("model", "version")


def exposition(collectors: Sequence[Collector]) -> bytes:
    """Return what `collectors` and this process say now, in the Prometheus text format 0.0.4."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


class NodeCollector(Collector):
    """Collects the metrics of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Yield every family of metrics, also where it has no sample yet."""
        node = self._node
        yield GaugeMetricFamily(
            "bedside_node_ready", "1 if the node takes requests, else 0", value=node.ready
        )
        states = [entry.state for entry in node.index()]
        models = GaugeMetricFamily(
            "bedside_node_models", "Model versions found in the repository", labels=["state"]
        )
        for state in ("READY", "UNAVAILABLE"):
            models.add_metric([state.lower()], states.count(state))
        yield models
        yield from _of_models(node.loaded())


def _of_models(loaded: Sequence[LoadedModel]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "bedside_node_model_info",
        "1 for each model version that serves, with what runs it",
        labels=[*_MODEL, "execution_provider"],
    )
    requests = CounterMetricFamily(
        "bedside_node_requests",
        "Requests that came to a model's queue, by what became of them",
        labels=[*_MODEL, "outcome"],
    )
    rows = CounterMetricFamily("bedside_node_rows", "Rows that models answered", labels=_MODEL)
    batches = HistogramMetricFamily(
        "bedside_node_batch_rows", "Runs of a model, by how many rows they had", labels=_MODEL
    )
    depth = GaugeMetricFamily("bedside_node_queue_depth", "Requests that wait now", labels=_MODEL)
    waited = CounterMetricFamily(
        "bedside_node_queue_seconds", "Time that answered requests waited, in seconds", labels=_MODEL
    )
    took = CounterMetricFamily(
        "bedside_node_compute_seconds",
        "Time of runs: joining requests, in the model, cutting answers apart, in seconds",
        labels=[*_MODEL, "stage"],
    )
    for model in loaded:
        labels = [model.name, model.version]
        counters = model.batcher.counters
        report = counters.report(model.name, model.version)
        info.add_metric([*labels, model.session.provider], 1)
        requests.add_metric([*labels, "served"], report.inference_stats.success.count)
        for failure, count in counters.failures().items():
            requests.add_metric([*labels, failure], count)
        rows.add_metric(labels, report.inference_count)
        buckets = [(str(float(bound)), count) for bound, count in counters.sizes()]
        batches.add_metric(labels, [*buckets, ("+Inf", report.execution_count)], report.inference_count)
        depth.add_metric(labels, model.batcher.waiting)
        waited.add_metric(labels, report.inference_stats.queue.ns / 1e9)
        for stage, seconds in zip(("input", "infer", "output"), counters.seconds(), strict=True):
            took.add_metric([*labels, stage], seconds)
    yield from (info, requests, rows, batches, depth, waited, took)
