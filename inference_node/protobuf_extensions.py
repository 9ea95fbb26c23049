"""What the extensions of the protocol answer, as protobuf messages.

Source: protobuf/grpc_service.proto of triton-inference-server/common, and the statistics, model
configuration and model repository extensions that it carries.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from inference_node.oip import RepositoryEntry
from inference_node.schema import message_class
from inference_node.statistics import Duration, InferStatistics, ModelStatistics

ModelConfigResponse: Final = message_class("ModelConfigResponse")
ModelStatisticsResponse: Final = message_class("ModelStatisticsResponse")
RepositoryIndexResponse: Final = message_class("RepositoryIndexResponse")

_BATCH_FIELDS: Final = ("compute_input", "compute_infer", "compute_output")


def statistics_message(statistics: Iterable[ModelStatistics]) -> Message:
    """Return the ModelStatisticsResponse of `statistics`."""
    message = ModelStatisticsResponse()
    for model in statistics:
        wire = message.model_stats.add(
            name=model.name,
            version=model.version,
            last_inference=model.last_inference,
            inference_count=model.inference_count,
            execution_count=model.execution_count,
        )
        for field in InferStatistics.__struct_fields__:
            _set(getattr(wire.inference_stats, field), getattr(model.inference_stats, field))
        for batch in model.batch_stats:
            batch_wire = wire.batch_stats.add(batch_size=batch.batch_size)
            for field in _BATCH_FIELDS:
                _set(getattr(batch_wire, field), getattr(batch, field))
    encoded: Message = message
    return encoded


def index_message(index: Iterable[RepositoryEntry]) -> Message:
    """Return the RepositoryIndexResponse of `index`."""
    message: Message = RepositoryIndexResponse(
        models=[
            RepositoryIndexResponse.ModelIndex(
                name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
            )
            for entry in index
        ]
    )
    return message


def model_config_message(config: Mapping[str, Any]) -> Message:
    """Return the ModelConfigResponse of a configuration under the schema's names.

    What another server tells beyond the schema is left out.
    """
    message: Message = ModelConfigResponse()
    json_format.ParseDict({"config": config}, message, ignore_unknown_fields=True)
    return message


def _set(wire: Any, duration: Duration) -> None:  # noqa: ANN401
    wire.count, wire.ns = duration.count, duration.ns
    # A duration of nothing is there all the same, as Triton sends it.
    wire.SetInParent()
