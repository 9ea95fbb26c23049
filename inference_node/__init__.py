"""The on-premises node: a model repository, ONNX Runtime sessions, a batcher and its server."""

from inference_node.client import NodeClient
from inference_node.codec import (
    check_json,
    decode_request,
    decode_response,
    encode_response,
    tensor_from_json,
)
from inference_node.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InputInvalid,
    ModelNotReady,
    ModelReplaced,
    ModelUnknown,
    NodeError,
    NodeFailed,
    NodeSilent,
    NodeUnreachable,
    QueueFull,
    RepositoryError,
)
from inference_node.metrics import CONTENT_TYPE, NodeCollector, exposition
from inference_node.node import Node
from inference_node.oip import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RepositoryEntry,
    RequestedOutput,
    ServerMetadata,
    Tensor,
    TensorMetadata,
)
from inference_node.postprocess import CLASSIFICATION, asks_of_classes
from inference_node.server import NodeServer
from inference_node.settings import Device, NodeSettings
from inference_node.shapes import open_rows, says_that_it_batches
from inference_node.statistics import BatchStatistics, Duration, InferStatistics, ModelStatistics
from inference_node.summaries import asks_of_distributions, derived_outputs
from inference_node.validation import feed_of
from inference_node.wire import MALFORMED, stated_length

__all__ = [
    "CLASSIFICATION",
    "CONTENT_TYPE",
    "MALFORMED",
    "BatchStatistics",
    "DeadlineExceeded",
    "Device",
    "Duration",
    "ExecutionFailed",
    "InferRequest",
    "InferResponse",
    "InferStatistics",
    "InputInvalid",
    "ModelMetadata",
    "ModelNotReady",
    "ModelReplaced",
    "ModelStatistics",
    "ModelUnknown",
    "Node",
    "NodeClient",
    "NodeCollector",
    "NodeError",
    "NodeFailed",
    "NodeServer",
    "NodeSettings",
    "NodeSilent",
    "NodeUnreachable",
    "QueueFull",
    "RepositoryEntry",
    "RepositoryError",
    "RequestedOutput",
    "ServerMetadata",
    "Tensor",
    "TensorMetadata",
    "asks_of_classes",
    "asks_of_distributions",
    "check_json",
    "decode_request",
    "decode_response",
    "derived_outputs",
    "encode_response",
    "exposition",
    "feed_of",
    "open_rows",
    "says_that_it_batches",
    "stated_length",
    "tensor_from_json",
]
