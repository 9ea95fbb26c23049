"""Inference messages of the gRPC protocol: every datatype both ways, and what contradicts itself."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from inference_node import InferResponse, InputInvalid, Tensor
from inference_node.oip import DTYPES
from inference_node.protobuf import (
    ModelInferRequest,
    ModelInferResponse,
    message_of,
    parse,
    request_of,
    set_parameters,
)
from inference_node.schema import POOL, SERVICE, message_class, method_names
from inference_node.tensors import to_binary

CONTENTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "INT8": "int_contents",
    "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def arrays(datatype):
    shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    if datatype == "BYTES":
        return shapes.flatmap(
            lambda shape: st.lists(
                st.binary(max_size=8), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))
            ).map(lambda items: np.array([*items, None], object)[:-1].reshape(shape))
        )
    if datatype == "BF16":
        floats = npst.arrays(np.float32, shapes, elements=st.floats(width=16))
        return floats.map(lambda array: array.astype(ml_dtypes.bfloat16))
    return npst.arrays(DTYPES[datatype], shapes)


def message(**changes):
    fields = {"name": "x", "datatype": "FP32", "shape": [1, 3], **changes}
    contents = fields.pop("contents", None)
    made = ModelInferRequest(model_name="m")
    tensor = made.inputs.add(**fields)
    if contents is not None:
        name, values = contents
        getattr(tensor.contents, name).extend(values)
        tensor.contents.SetInParent()
    return made


@pytest.mark.parametrize("datatype", DTYPES)
@given(data=st.data())
def test_raw_contents_come_in_and_go_out_unchanged(datatype, data):
    array = data.draw(arrays(datatype))
    made = message(datatype=datatype, shape=array.shape)
    made.raw_input_contents.append(to_binary(array, datatype))
    request = request_of(parse(ModelInferRequest, made.SerializeToString()))
    (tensor,) = request.inputs
    assert (tensor.datatype, tensor.shape, tensor.binary) == (datatype, array.shape, True)
    assert to_binary(tensor.array, datatype) == to_binary(array, datatype)
    answered = message_of(
        InferResponse(model_name="m", model_version="1", outputs=[tensor], id="7"), request
    )
    assert (answered.model_version, answered.id) == ("1", "7")
    assert answered.raw_output_contents == made.raw_input_contents
    assert not answered.outputs[0].HasField("contents")


@pytest.mark.parametrize("datatype", CONTENTS)
@given(data=st.data())
def test_typed_contents_are_answered_with_typed_contents(datatype, data):
    array = data.draw(arrays(datatype))
    values = array.ravel().tolist()
    made = message(datatype=datatype, shape=array.shape, contents=(CONTENTS[datatype], values))
    request = request_of(parse(ModelInferRequest, made.SerializeToString()))
    (tensor,) = request.inputs
    assert tensor.array.dtype == DTYPES[datatype]
    assert tensor.array.shape == array.shape
    assert to_binary(tensor.array, datatype) == to_binary(array, datatype)
    answered = message_of(InferResponse(model_name="m", model_version="1", outputs=[tensor]), request)
    assert not answered.raw_output_contents
    assert answered.outputs[0].HasField("contents")
    again = getattr(answered.outputs[0].contents, CONTENTS[datatype])
    assert np.array_equal(np.array(list(again), object), np.array(values, object)) or any(
        value != value for value in values
    )


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_has_no_typed_contents_is_answered_raw(datatype):
    request = request_of(message(contents=("fp32_contents", [1, 2, 3])))
    array = np.ones((1, 3), DTYPES[datatype])
    outputs = [
        Tensor(name="half", datatype=datatype, shape=(1, 3), array=array),
        Tensor(name="whole", datatype="FP32", shape=(1,), array=np.ones(1, np.float32)),
    ]
    answered = message_of(InferResponse(model_name="m", model_version="1", outputs=outputs), request)
    assert len(answered.raw_output_contents) == 2
    with pytest.raises(InputInvalid, match="raw contents only"):
        request_of(message(datatype=datatype, contents=("fp32_contents", [1, 2, 3])))


@pytest.mark.parametrize(("wanted", "raw"), [(True, 1), (False, 0)])
def test_a_parameter_outranks_the_form_of_the_inputs(wanted, raw):
    made = message(contents=("fp32_contents", [1, 2, 3]))
    set_parameters(made, {"binary_data_output": wanted})
    tensor = Tensor(name="y", datatype="FP32", shape=(1,), array=np.ones(1, np.float32))
    response = InferResponse(model_name="m", model_version="1", outputs=[tensor])
    assert len(message_of(response, request_of(made)).raw_output_contents) == raw


def test_an_output_is_asked_for_once():
    wire = message()
    for name in ("y", "z", "y"):
        wire.outputs.add(name=name)
    with pytest.raises(InputInvalid, match="asked for twice"):
        request_of(wire)


def test_inputs_may_be_named_without_data():
    made = message()
    made.inputs.add(name="z", datatype="BYTES", shape=[-0])
    request = request_of(made)
    assert not request.carries_tensors
    assert [tensor.name for tensor in request.inputs] == ["x", "z"]


def test_parameters_keep_their_kinds():
    made = message(contents=("fp32_contents", [1, 2, 3]))
    sent = {"flag": True, "count": -3, "large": 2**64 - 1, "share": 0.5, "text": "ö"}
    set_parameters(made, {**sent, "nothing": None})
    made.outputs.add(name="y")
    set_parameters(made.outputs[0], {"classification": 2})
    request = request_of(made)
    assert request.parameters == sent
    assert type(request.parameters["flag"]) is bool
    assert request.outputs[0].parameters == {"classification": 2}
    answered = ModelInferResponse()
    set_parameters(answered, {"headers": {"a": [1]}})
    assert answered.parameters["headers"].string_param == '{"a": [1]}'


def without_value():
    made = message(contents=("fp32_contents", [1, 2, 3]))
    made.parameters["x"].SetInParent()
    return made


def raw(*contents, **changes):
    made = message(**changes)
    made.raw_input_contents.extend(contents)
    return made


def both():
    made = message(contents=("fp32_contents", [1, 2, 3]))
    made.raw_input_contents.append(bytes(12))
    return made


def twice():
    made = message()
    made.inputs.add(name="x", datatype="FP32", shape=[1])
    return made


CONTRADICTIONS = {
    "no inputs": (ModelInferRequest(model_name="m"), "1 to 256 inputs"),
    "257 inputs": (ModelInferRequest(inputs=[{"name": str(n)} for n in range(257)]), "1 to 256"),
    "an unknown datatype": (message(datatype="FP99"), "datatype is not one of"),
    "one name twice": (twice(), "name of an earlier one"),
    "a negative dimension": (message(shape=[-1, 3]), "negative"),
    "17 dimensions": (message(shape=[1] * 17), "more than 16 dimensions"),
    "a huge shape": (message(shape=[2**62, 2**62]), "elements"),
    "a huge empty shape": (message(shape=[0, 2**62]), "elements"),
    "too few values": (message(contents=("fp32_contents", [1])), "says 3 elements"),
    "values in another field": (message(contents=("fp64_contents", [1, 2, 3])), "sent as fp32"),
    "a value out of range": (
        message(datatype="INT8", contents=("int_contents", [1, 2, 128])), "does not fit"),
    "a value below range": (
        message(datatype="INT16", contents=("int_contents", [1, 2, -40000])), "does not fit"),
    "raw contents that are too short": (raw(bytes(11)), "12 bytes"),
    "raw contents that are too long": (raw(bytes(13)), "12 bytes"),
    "more raw contents than inputs": (raw(bytes(12), b""), "another number of entries"),
    "raw and typed contents": (both(), "both"),
    "a boolean that is 2": (raw(b"\0\1\2", datatype="BOOL"), "neither 0 nor 1"),
    "an element past the end": (
        raw(b"\x09\0\0\0ab", datatype="BYTES", shape=[1]), "longer than"),
    "a parameter without value": (without_value(), "no value"),
    "257 outputs": (
        ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32"}], outputs=[{}] * 257), "at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_refused(case):
    made, words = CONTRADICTIONS[case]
    with pytest.raises(InputInvalid, match=words):
        request_of(made)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(body):
    try:
        request = request_of(parse(ModelInferRequest, body))
    except InputInvalid:
        return
    assert request.inputs


@given(st.data())
def test_a_changed_message_is_a_request_or_refused(data):
    body = bytearray(raw(bytes(12)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for changed in (bytes(body), bytes(body[:cut])):
        try:
            request_of(parse(ModelInferRequest, changed))
        except InputInvalid:
            continue


def test_the_schema_is_the_published_one():
    from tritonclient.grpc import model_config_pb2, service_pb2

    for published in (service_pb2, model_config_pb2):
        own = POOL.FindFileByName(published.DESCRIPTOR.name)
        assert own.serialized_pb == published.DESCRIPTOR.serialized_pb
    assert "ModelStreamInfer" in method_names()
    assert message_class("ModelInferRequest") is not service_pb2.ModelInferRequest
    assert POOL.FindServiceByName(SERVICE).full_name == SERVICE
