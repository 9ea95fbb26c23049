"""Server reflection: the schemas of what is served, for tools such as grpcurl.

It is open, as it tells no more than the published schemas. The library knows the version v1alpha only;
v1 has the same messages under another package name, and recent tools ask for it first.
"""

from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from inference_node.schema import POOL, SERVICE
from secure_gateway.rpc.health import HEALTH

V1ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
V1: Final = "grpc.reflection.v1.ServerReflection"
SERVICES: Final = (SERVICE, HEALTH, V1ALPHA, V1)


def reflection_handlers() -> dict[str, Any]:
    """Return the handler of each reflection service by its path."""
    servicer = aio.ReflectionServicer(SERVICES, pool=_served())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {f"/{service}/ServerReflectionInfo": handler for service in (V1ALPHA, V1)}


def _served() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for name in ("model_config.proto", "grpc_service.proto"):
        pool.AddSerializedFile(POOL.FindFileByName(name).serialized_pb)
    alpha = reflection_pb2.DESCRIPTOR.serialized_pb
    pool.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(alpha)
    pool.Add(_renamed(descriptor_pb2.FileDescriptorProto.FromString(alpha)))
    return pool


def _renamed(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    file.name = file.name.replace("v1alpha", "v1")
    file.package = file.package.replace("v1alpha", "v1")
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace("v1alpha", "v1")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace("v1alpha", "v1")
        method.output_type = method.output_type.replace("v1alpha", "v1")
    return file
