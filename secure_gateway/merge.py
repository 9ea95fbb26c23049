"""What several nodes say of the same models, as one answer of the site."""

from collections.abc import Iterable, Sequence

from inference_node import (
    BatchStatistics,
    Duration,
    InferStatistics,
    ModelStatistics,
    RepositoryEntry,
)

READY = "READY"
DIFFERS = "nodes of this site serve different files under this name and version"


def merge_statistics(reports: Iterable[Sequence[ModelStatistics]]) -> tuple[ModelStatistics, ...]:
    """Return the sum over nodes for each model and version, in order; the latest use counts."""
    merged: dict[tuple[str, str], ModelStatistics] = {}
    for report in reports:
        for model in report:
            key = (model.name, model.version)
            earlier = merged.get(key)
            merged[key] = model if earlier is None else _sum(earlier, model)
    return tuple(merged[key] for key in sorted(merged, key=_order))


def merge_indexes(
    indexes: Iterable[Sequence[RepositoryEntry]], *, ready: bool
) -> tuple[RepositoryEntry, ...]:
    """Return every model and version that any node has, in order: the union of their indexes.

    A version is ready if some node is ready to serve it; `ready` leaves out the others. Where ready
    nodes have different files of it, it has no digest, and the reason says so.
    """
    merged: dict[tuple[str, str], RepositoryEntry] = {}
    for index in indexes:
        for entry in index:
            key = (entry.name, entry.version)
            earlier = merged.get(key)
            merged[key] = entry if earlier is None else _joined(earlier, entry)
    return tuple(
        merged[key] for key in sorted(merged, key=_order) if merged[key].state == READY or not ready
    )


def _joined(one: RepositoryEntry, other: RepositoryEntry) -> RepositoryEntry:
    if READY not in {one.state, other.state} or one.state != other.state:
        return other if other.state == READY else one
    if one.digest == other.digest:
        return one
    return RepositoryEntry(name=one.name, version=one.version, state=READY, reason=DIFFERS)


def _sum(one: ModelStatistics, other: ModelStatistics) -> ModelStatistics:
    stats = {
        field: _durations(getattr(one.inference_stats, field), getattr(other.inference_stats, field))
        for field in InferStatistics.__struct_fields__
    }
    batches = {batch.batch_size: batch for batch in one.batch_stats}
    for batch in other.batch_stats:
        earlier = batches.get(batch.batch_size, BatchStatistics(batch_size=batch.batch_size))
        batches[batch.batch_size] = BatchStatistics(
            batch_size=batch.batch_size,
            compute_input=_durations(earlier.compute_input, batch.compute_input),
            compute_infer=_durations(earlier.compute_infer, batch.compute_infer),
            compute_output=_durations(earlier.compute_output, batch.compute_output),
        )
    return ModelStatistics(
        name=one.name,
        version=one.version,
        last_inference=max(one.last_inference, other.last_inference),
        inference_count=one.inference_count + other.inference_count,
        execution_count=one.execution_count + other.execution_count,
        inference_stats=InferStatistics(**stats),
        batch_stats=tuple(batches[size] for size in sorted(batches)),
    )


def _durations(one: Duration, other: Duration) -> Duration:
    return Duration(one.count + other.count, one.ns + other.ns)


def _order(key: tuple[str, str]) -> tuple[str, int, str]:
    name, version = key
    return name, int(version) if version.isdigit() else 0, version
