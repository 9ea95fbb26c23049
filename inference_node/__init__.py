"""The on-premises node: a model repository, ONNX Runtime sessions, a batcher and its server."""

from inference_node.client import NodeClient
from inference_node.codec import decode_request, encode_response, tensor_from_json
from inference_node.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InputInvalid,
    ModelNotReady,
    ModelUnknown,
    NodeError,
    NodeFailed,
    NodeUnreachable,
    QueueFull,
    RepositoryError,
)
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
from inference_node.server import NodeServer
from inference_node.settings import Device, NodeSettings
from inference_node.validation import feed_of

__all__ = [
    "DeadlineExceeded",
    "Device",
    "ExecutionFailed",
    "InferRequest",
    "InferResponse",
    "InputInvalid",
    "ModelMetadata",
    "ModelNotReady",
    "ModelUnknown",
    "Node",
    "NodeClient",
    "NodeError",
    "NodeFailed",
    "NodeServer",
    "NodeSettings",
    "NodeUnreachable",
    "QueueFull",
    "RepositoryEntry",
    "RepositoryError",
    "RequestedOutput",
    "ServerMetadata",
    "Tensor",
    "TensorMetadata",
    "decode_request",
    "encode_response",
    "feed_of",
    "tensor_from_json",
]
