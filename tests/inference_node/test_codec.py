import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from inference_node import InferResponse, InputInvalid, Tensor, decode_request, encode_response
from inference_node.codec import check_json, decode_response, encode_request
from inference_node.oip import DTYPES, InferRequest, RequestedOutput, datatype_of

SECRET = "secret-7f3a"


@st.composite
def tensors(draw, datatypes=tuple(DTYPES)):
    datatype = draw(st.sampled_from(datatypes))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = int(np.prod(shape, dtype=int))
    if datatype == "BYTES":
        values = draw(st.lists(st.text(max_size=5), min_size=size, max_size=size))
        array = np.empty(size, dtype=object)
        array[:] = [value.encode() for value in values]
        array = array.reshape(shape)
    elif datatype == "BF16":
        values = draw(st.lists(st.integers(-99, 99), min_size=size, max_size=size))
        array = np.array(values, dtype=DTYPES[datatype]).reshape(shape)
    else:
        finite = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else {}
        array = draw(npst.arrays(DTYPES[datatype], shape, elements=finite or None))
    return Tensor(name="x", datatype=datatype, shape=shape, array=array)


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and (one == other).all()


@given(tensors(), st.booleans())
def test_every_datatype_survives_both_encodings(tensor, binary):
    request = InferRequest(inputs=[tensor], outputs=[RequestedOutput(name="x", binary=binary)], id="7")
    body, length = encode_request(request)
    read = decode_request(body, header_length=length)
    assert same(read.inputs[0].array, tensor.array)
    response = InferResponse(model_name="m", model_version="1", outputs=[tensor], id="7")
    body, length = encode_response(response, request)
    assert (length is not None) is binary
    read = decode_response(body, header_length=length)
    assert same(read.outputs[0].array, tensor.array)
    assert read.id == "7"


def json_body(**tensor):
    fields = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2], **tensor}
    return json.dumps({"inputs": [{k: v for k, v in fields.items() if v is not None}]}).encode()


def test_nested_and_flat_lists_mean_the_same():
    nested = decode_request(json_body(shape=[2, 2], data=[[1, 2], [3, 4.5]]))
    flat = decode_request(json_body(shape=[2, 2], data=[1, 2, 3, 4.5]))
    assert (nested.inputs[0].array == flat.inputs[0].array).all()


def test_an_input_may_be_named_without_data():
    request = decode_request(json_body(data=None))
    assert request.inputs[0].array is None
    assert not request.carries_tensors


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [{"name": "x"}]}',
        json_body(data=[1]),
        json_body(data=[1, 2, 3]),
        json_body(data=["1", "2"]),
        json_body(data=[True, False]),
        json_body(data=[SECRET, 1]),
        json_body(data=[[1], [2, 3]]),
        json_body(data=SECRET),
        json_body(shape=[-2]),
        json_body(shape=[2**40, 2**40], data=[1]),
        json_body(shape=[1] * 99, data=[1]),
        json_body(shape=["2"]),
        json_body(datatype="FP33"),
        json_body(datatype=SECRET),
        json_body(datatype="UINT8", data=[1, 256]),
        json_body(datatype="INT64", data=[1, 2**63]),
        json_body(datatype="BOOL", data=[0, 1]),
        json_body(datatype="INT32", data=[1.5, 2]),
        json_body(datatype="BYTES", data=[1, 2]),
        json_body(parameters={"binary_data_size": 8}),
        json_body(data=None, parameters={"binary_data_size": 8}),
        json_body(data=None, parameters={"binary_data_size": -8}),
        json_body(data=None, parameters={"binary_data_size": True}),
        json.dumps({"inputs": [json.loads(json_body())["inputs"][0]] * 2}).encode(),
        # Not the JSON library's own errors, but the interpreter's.
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json_body(data=[1, 2]).replace(b"[1, 2]", b"[" * 5000 + b"1" + b"]" * 5000),
        json_body(data=[1, 2]).replace(b'"name"', b'"more": ' + b'{"a":' * 5000 + b"1, " + b'"name"'),
        json_body(data=[1, 2]).replace(b'"x"', b'"\xff"'),
        json_body(data=[1, 2]).replace(b"[1, 2]", b"[" + b"9" * 5000 + b", 1]"),
    ],
)
def test_malformed_bodies_are_refused_without_quoting_them(body):
    with pytest.raises(InputInvalid) as caught:
        decode_request(body)
    assert SECRET not in str(caught.value)


@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_no_bytes_at_all_do_anything_but_parse_or_be_refused(body, length):
    with contextlib.suppress(InputInvalid):
        decode_request(body, header_length=length)


@given(tensors(), st.data())
def test_a_binary_body_that_was_cut_off_is_refused(tensor, data):
    body, length = encode_request(InferRequest(inputs=[tensor]))
    if len(body) > length:
        cut = data.draw(st.integers(length, len(body) - 1))
        with pytest.raises(InputInvalid):
            decode_request(body[:cut], header_length=length)
    with pytest.raises(InputInvalid):
        decode_request(body + b"\0", header_length=length)


def test_every_numpy_type_has_a_name():
    for name, dtype in DTYPES.items():
        assert datatype_of(np.empty(0, dtype=dtype)) == name


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_a_number_too_large_for_its_datatype_is_refused_not_made_infinite(datatype, nested):
    largest = {"FP16": "70000", "FP32": "1e39", "FP64": "1e999", "BF16": "1e39"}[datatype]
    data = f"[[{largest}]]" if nested else f"[{largest}]"
    body = f'{{"inputs":[{{"name":"x","shape":[1,1],"datatype":"{datatype}","data":{data}}}]}}'
    with pytest.raises(InputInvalid):
        decode_request(body.encode())


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20),
    datatype=st.sampled_from(["FP32", "FP64"]),
    nested=st.booleans(),
)
def test_flat_and_nested_floats_take_different_roads_to_the_same_tensor(values, datatype, nested):
    data = [values] if nested else values
    tensor = {"name": "x", "shape": [1, len(values)], "datatype": datatype, "data": data}
    # Past what is looked at first: a long id pushes the datatype out of sight.
    for request_id in ("", "i" * 2000):
        body = json.dumps({"id": request_id, "inputs": [tensor]}).encode()
        array = decode_request(body).inputs[0].array
        assert array is not None
        assert array.dtype == DTYPES[datatype]
        assert array.tolist() == [values]


def test_bytes_that_json_cannot_carry_are_seen_before_they_are_encoded():
    array = np.array([b"\xff"], dtype=object)
    output = Tensor(name="y", datatype="BYTES", shape=(1,), array=array)
    response = InferResponse(model_name="m", model_version="1", outputs=[output])
    for request in (None, InferRequest(inputs=[]), asking("y", binary=False)):
        with pytest.raises(InputInvalid, match="ask for it in binary"):
            check_json(response, request)
        with pytest.raises(InputInvalid):
            encode_response(response, request)
    for request in (InferRequest(inputs=[], binary_output=True), asking("y", binary=True)):
        check_json(response, request)
        assert encode_response(response, request)[0].endswith(b"\x01\x00\x00\x00\xff")


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("null", math.nan),
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ('"NaN"', math.nan),
        ('"Infinity"', math.inf),
        ('"-Infinity"', -math.inf),
    ],
)
def test_numbers_that_json_has_no_words_for_are_read(datatype, nested, sent, meant):
    """`null` is MLServer's NaN, the bare words are Triton's and Python's, strings are protobuf's."""
    data = f"[{sent}, 1, -2.5]"
    shape = "[1, 3]" if nested else "[3]"
    tensor = f'"name": "x", "shape": {shape}, "datatype": "{datatype}"'
    body = f'{{"inputs": [{{{tensor}, "data": {f"[{data}]" if nested else data}}}]}}'
    array = decode_request(body.encode()).inputs[0].array
    assert array is not None
    assert array.dtype == DTYPES[datatype]
    np.testing.assert_array_equal(array.ravel().astype(float), [meant, 1, -2.5])


def test_words_in_strings_stay_as_they_are():
    head = r'{"id": "a\"NaN, \\", "parameters": {"Infinity": "-Infinity,NaN"}, "inputs": ['
    tensors = (
        '{"name": "NaN", "shape": [1], "datatype": "FP32", "data": [NaN]}',
        r'{"name": "b", "shape": [2], "datatype": "BYTES", "data": ["\"NaN", "[-Infinity]"]}',
    )
    request = decode_request(f"{head}{', '.join(tensors)}]}}".encode())
    assert request.id == 'a"NaN, \\'
    assert request.parameters == {"Infinity": "-Infinity,NaN"}
    assert [tensor.name for tensor in request.inputs] == ["NaN", "b"]
    array = request.inputs[1].array
    assert array is not None
    assert array.tolist() == [b'"NaN', b"[-Infinity]"]


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP32", "[NaN, 1e39]"),
        ("FP32", "[null, 1e39]"),
        ("FP32", '[Infinity, "1"]'),
        ("FP32", '["nan", 1]'),
        ("FP32", "[-NaN, 1]"),
        ("FP32", "[NaNNaN, 1]"),
        ("FP32", "[+Infinity, 1]"),
        ("FP32", "[1e999, 1]"),
        ("FP32", "[null, true]"),
        ("INT32", "[null, 1]"),
        ("INT32", "[NaN, 1]"),
        ("BOOL", "[null, true]"),
        ("BYTES", "[null, 1]"),
        ("BYTES", '[NaN, "a", "b"]'),
    ],
)
def test_other_words_and_other_datatypes_are_refused(datatype, data):
    body = f'{{"inputs": [{{"name": "x", "shape": [2], "datatype": "{datatype}", "data": {data}}}]}}'
    with pytest.raises(InputInvalid):
        decode_request(body.encode())


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_an_infinity_is_seen_before_it_is_encoded_and_nan_is_null(datatype):
    """As `null` it would come out as NaN, and nobody would know."""
    for value in (math.inf, -math.inf):
        response = answering(np.array([math.nan, value], dtype=DTYPES[datatype]), datatype)
        with pytest.raises(InputInvalid, match="ask for it in binary"):
            check_json(response, None)
        check_json(response, asking("y", binary=True))
    response = answering(np.array([math.nan, 1], dtype=DTYPES[datatype]), datatype)
    check_json(response, None)
    body = encode_response(response, None)[0]
    assert b'"data":[null,1.0]' in body
    array = decode_response(body).outputs[0].array
    assert array is not None
    np.testing.assert_array_equal(array.astype(float), [math.nan, 1])


def test_a_server_may_answer_with_words_that_json_does_not_have():
    """Triton does."""
    tensor = '{"name": "y", "shape": [3], "datatype": "FP32", "data": [NaN, -Infinity, 1.5]}'
    body = f'{{"model_name": "NaN", "outputs": [{tensor}]}}'
    response = decode_response(body.encode())
    assert response.model_name == "NaN"
    array = response.outputs[0].array
    assert array is not None
    np.testing.assert_array_equal(array, np.float32([math.nan, -math.inf, 1.5]))


def test_members_that_may_be_left_out_may_be_null():
    """As serializers write them that leave nothing out."""
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.5], "parameters": None}
    for other in (tensor, {**tensor, "data": [[1.5]]}, {**tensor, "datatype": "INT8", "data": [1]}):
        body = {"id": None, "parameters": None, "outputs": None, "inputs": [other]}
        request = decode_request(json.dumps(body).encode())
        assert (request.id, request.parameters, request.outputs) == (None, {}, [])
    body["outputs"] = [{"name": "y", "parameters": None}]
    assert decode_request(json.dumps(body).encode()).outputs == [RequestedOutput(name="y")]


def test_an_output_is_asked_for_once():
    """Asked for twice, it has two wishes and one place in the answer."""
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.5]}
    body = {"inputs": [tensor], "outputs": [{"name": "y"}, {"name": "z"}, {"name": "y"}]}
    with pytest.raises(InputInvalid, match="asked for twice"):
        decode_request(json.dumps(body).encode())


def answering(array, datatype):
    output = Tensor(name="y", datatype=datatype, shape=array.shape, array=array)
    return InferResponse(model_name="m", model_version="1", outputs=[output])


def asking(name, *, binary):
    return InferRequest(inputs=[], outputs=[RequestedOutput(name=name, binary=binary)])
