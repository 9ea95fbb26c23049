"""Published stubs of the service, of health and of reflection, against a live gateway."""

import grpc
import pytest
from conformance.identity import VALUES, model_name
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc

SERVICE = "inference.GRPCInferenceService"
CONTENTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "INT8": "int_contents",
    "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


@pytest.fixture(scope="module")
def channel(gateway):
    with grpc.insecure_channel(gateway.grpc_address) as made:
        yield made


@pytest.fixture(scope="module")
def metadata(facts):
    return tuple(facts().items())


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_of_every_datatype_that_has_them(channel, metadata, datatype):
    values = VALUES[datatype].ravel().tolist()
    if datatype == "BYTES":
        values = [value.encode() for value in values]
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name="x", datatype=datatype, shape=[1, 3],
        contents=service_pb2.InferTensorContents(**{CONTENTS[datatype]: values}),
    )  # fmt: skip
    request = service_pb2.ModelInferRequest(
        model_name=model_name(datatype), model_version="1", inputs=[tensor]
    )
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    response, call = stub.ModelInfer.with_call(request, metadata=metadata)
    (output,) = response.outputs
    assert not response.raw_output_contents
    assert list(getattr(output.contents, CONTENTS[datatype])) == list(
        getattr(tensor.contents, CONTENTS[datatype])
    )
    trailing = dict(call.trailing_metadata())
    assert trailing["bedside-record"] == response.parameters["bedside_record"].string_param


def test_a_health_probe(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        asked = health_pb2.HealthCheckRequest(service=service)
        assert stub.Check(asked).status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(asked)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_reflection_tells_the_published_schema(channel, metadata):
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert services == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    pool = DescriptorPool(database)
    for service in services:
        assert pool.FindServiceByName(service).methods
    service = pool.FindServiceByName(SERVICE)
    published = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert set(service.methods_by_name) == set(published.methods_by_name)
    assert service.file.serialized_pb == service_pb2.DESCRIPTOR.serialized_pb


def test_reflection_answers_under_its_newer_name_too(channel):
    from grpc_reflection.v1alpha import reflection_pb2

    stub = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
    (answer,) = stub(iter([asked]))
    assert answer.file_descriptor_response.file_descriptor_proto
