"""The protocol's published protobuf schema, in a descriptor pool of its own.

`grpc_service.binpb` and `model_config.binpb` are compiled descriptors of protobuf/grpc_service.proto
and protobuf/model_config.proto (triton-inference-server/common, BSD-3-Clause; KServe's
open_inference_grpc.proto is a subset with the same numbers). tritonclient registers the same names in
the default pool, and a process may hold both. So the server needs neither tritonclient nor a code
generator.
"""

from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "inference.GRPCInferenceService"

_FILES: Final = ("model_config.binpb", "grpc_service.binpb")


def _published() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for name in _FILES:
        content = Path(__file__).with_name(name).read_bytes()
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(content))
    return pool


POOL: Final = _published()


def message_class(name: str) -> Any:  # noqa: ANN401 protobuf makes it at run time
    """Return the class of a message of package `inference`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def method_names() -> tuple[str, ...]:
    """Return the names of the service's methods."""
    return tuple(POOL.FindServiceByName(SERVICE).methods_by_name)
