"""The wire codecs against tritonclient's messages, byte for byte where the protocol fixes it."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import tritonclient.grpc as reference
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tritonsmith_client import ResponseError, Result
from tritonsmith_client._protocol.grpc import infer as grpcwire
from tritonsmith_client._protocol.infer_request import InferCall, InputTensor, RequestedOutput
from tritonsmith_client._values import bytes_codec as bytescodec
from tritonsmith_client._values.buffers import wire_buffer
from tritonsmith_client.dtypes import DATA_TYPES, from_numpy

NAMES = st.text(min_size=1, max_size=20)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NUMERIC = [row for row in DATA_TYPES if row.wire != "BYTES"]
PARAMETERS = st.dictionaries(
    NAMES, st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | NAMES
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Any data type, rank 0 to 4, empty axes, and memory that is not in row-major order."""
    row = draw(st.sampled_from(DATA_TYPES))
    shape = draw(SHAPES)
    if row.wire == "BYTES":
        return draw(hnp.arrays(object, shape, elements=st.binary(max_size=30)))
    raw = draw(hnp.arrays(np.uint8, (int(np.prod(shape)) * row.numpy.itemsize,)))
    array = (raw & 1 if row.wire == "BOOL" else raw).view(row.numpy).reshape(shape)
    return array.T if draw(st.booleans()) else array


def framed(call: InferCall, buffers: list[Any]) -> bytes:
    framing = grpcwire.request_framing(call)
    return b"".join(piece for pair in zip(framing, buffers, strict=True) for piece in pair)


@given(NAMES, st.sampled_from(["", "1", "12"]), st.lists(arrays(), min_size=1, max_size=3))
def test_a_request_is_byte_for_byte_what_tritonclient_sends(
    model: str, version: str, given_arrays: list[np.ndarray[Any, Any]]
) -> None:
    inputs, buffers, theirs = [], [], []
    for number, array in enumerate(given_arrays):
        dtype = from_numpy(array.dtype)
        buffer, size = wire_buffer(array, dtype, "x")
        buffers.append(buffer)
        inputs.append(InputTensor(f"in{number}", dtype.wire, array.shape, size))
        their = reference.InferInput(f"in{number}", list(array.shape), dtype.wire)
        their.set_data_from_numpy(array)
        theirs.append(their)
    wanted = [reference.InferRequestedOutput("out0"), reference.InferRequestedOutput("out1")]
    expected = reference._utils._get_inference_request(
        model_name=model,
        inputs=theirs,
        model_version=version,
        request_id="7",
        outputs=wanted,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    outputs = (RequestedOutput("out0"), RequestedOutput("out1"))
    call = InferCall(model, version, tuple(inputs), outputs, "7")
    assert framed(call, buffers) == expected.SerializeToString()


@given(PARAMETERS, PARAMETERS)
def test_parameters_arrive_with_their_types(of_request: Any, of_input: Any) -> None:
    tensor = InputTensor("x", "INT8", (1,), 1, of_input)
    call = InferCall("m", "", (tensor,), (), "", of_request)
    message = service_pb2.ModelInferRequest.FromString(framed(call, [b"\1"]))

    def plain(parameters: Any) -> dict[str, Any]:
        return {k: getattr(v, v.WhichOneof("parameter_choice")) for k, v in parameters.items()}

    for sent, got in ((of_request, message.parameters), (of_input, message.inputs[0].parameters)):
        assert {k: (type(v), v) for k, v in plain(got).items()} == {
            k: (type(v), v) for k, v in sent.items()
        }


@given(st.lists(arrays(), max_size=3), PARAMETERS, st.sampled_from(["", "abc"]), st.integers(1, 3))
def test_a_response_is_read_as_it_was_written(
    given_arrays: list[np.ndarray[Any, Any]], parameters: Any, id: str, times: int
) -> None:
    message = service_pb2.ModelInferResponse(model_name="m", model_version="3", id=id)
    for key, value in parameters.items():
        field = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
        setattr(message.parameters[key], field[type(value)], value)
    for number, array in enumerate(given_arrays):
        dtype = from_numpy(array.dtype)
        message.outputs.add(name=f"out{number}", datatype=dtype.wire, shape=array.shape)
        message.raw_output_contents.append(bytes(wire_buffer(array, dtype, "x")[0]))
    reader = grpcwire.ResponseReader()
    for _ in range(times):  # from the second time on with what was remembered
        result = reader.read(message.SerializeToString())
        assert (result.model_name, result.model_version, result.id) == ("m", "3", id)
        assert result.parameters == parameters
        assert list(result) == [f"out{n}" for n in range(len(given_arrays))]
        for array, got in zip(given_arrays, result.values(), strict=True):
            same(array, got)


def same(expected: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> None:
    assert got.dtype == expected.dtype.newbyteorder("=")
    assert got.shape == expected.shape
    assert got.tolist() == expected.tolist() if got.dtype == object else True
    assert got.dtype == object or got.tobytes() == expected.tobytes()
    assert got.flags.writeable


@given(st.lists(st.tuples(SHAPES, SHAPES), min_size=2, max_size=5))
def test_a_remembered_layout_is_not_used_for_another_one(shapes: list[Any]) -> None:
    reader = grpcwire.ResponseReader()
    for first, second in shapes:
        message = service_pb2.ModelInferResponse(model_name="m")
        for name, shape in (("a", first), ("b", second)):
            array = np.full(shape, 7, np.float32)
            message.outputs.add(name=name, datatype="FP32", shape=shape)
            message.raw_output_contents.append(array.tobytes())
        result = reader.read(message.SerializeToString())
        assert (result["a"].shape, result["b"].shape) == (first, second)
        assert (result["a"] == 7).all() and (result["b"] == 7).all()


@given(st.binary(max_size=200))
def test_garbage_is_a_typed_error_or_a_result(data: bytes) -> None:
    with contextlib.suppress(ResponseError):
        assert isinstance(grpcwire.ResponseReader().read(data), Result)


@given(st.data())
def test_a_cut_or_flipped_response_is_never_another_exception(data: st.DataObject) -> None:
    message = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    message.outputs.add(name="a", datatype="FP32", shape=[2, 2])
    message.outputs.add(name="b", datatype="BYTES", shape=[2])
    message.raw_output_contents.append(np.ones((2, 2), np.float32).tobytes())
    message.raw_output_contents.append(serialize_byte_tensor(np.array([b"x", b"yy"], "O")).item())
    raw = bytearray(message.SerializeToString())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    with contextlib.suppress(ResponseError):
        grpcwire.ResponseReader().read(bytes(raw[:cut]))


def test_typed_contents_of_other_servers_are_read() -> None:
    message = service_pb2.ModelInferResponse(model_name="m")
    message.outputs.add(name="a", datatype="INT64", shape=[2]).contents.int64_contents.extend(
        [1, 2]
    )
    message.outputs.add(name="b", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"x")
    result = grpcwire.ResponseReader().read(message.SerializeToString())
    assert result["a"].tolist() == [1, 2] and result["a"].dtype == np.int64
    assert result["b"].tolist() == [b"x"]


@pytest.mark.parametrize("row", NUMERIC, ids=str)
def test_large_results_are_views_that_can_be_written(row: Any) -> None:
    count = 200_000 // row.itemsize
    array = np.zeros(count, row.numpy)
    message = service_pb2.ModelInferResponse(model_name="m")
    message.outputs.add(name="a", datatype=row.wire, shape=[count])
    message.raw_output_contents.append(array.tobytes())
    raw = message.SerializeToString()
    got = grpcwire.ResponseReader().read(raw)["a"]
    got[:] = 1
    assert np.frombuffer(raw, row.numpy, count, len(raw) - array.nbytes)[-1] == 1, "was copied"


STRINGS = st.lists(st.binary(max_size=40), max_size=30)


@given(STRINGS)
def test_strings_are_coded_as_tritonclient_does(items: list[bytes]) -> None:
    array = np.empty(len(items), object)
    array[:] = items
    wire = bytescodec.encode(array)
    theirs = serialize_byte_tensor(array)
    assert wire == (theirs.item() if theirs.size else b"")
    assert bytescodec.decode(wire).tolist() == items
    if items:
        assert deserialize_bytes_tensor(wire).tolist() == items


@given(st.integers(0, 9), st.lists(st.text(max_size=9), min_size=1, max_size=9))
def test_fixed_width_strings_and_text(width: int, items: list[str]) -> None:
    text = np.array(items)
    assert bytescodec.decode(bytescodec.encode(text)).tolist() == [
        s.encode() for s in text.tolist()
    ]
    fixed = np.array([s.encode()[:width] for s in items])
    assert bytescodec.decode(bytescodec.encode(fixed)).tolist() == fixed.tolist()


def test_every_kind_of_string_element() -> None:
    array = np.array([b"a\0", "ü", bytearray(b"xy"), memoryview(b"z"), b""], object)
    assert bytescodec.decode(bytescodec.encode(array)).tolist() == [
        b"a\0", "ü".encode(), b"xy", b"z", b"",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [None, 5, 1.5, ["a"]])
def test_elements_that_are_no_strings_are_refused(wrong: object) -> None:
    array = np.empty(1, object)
    array[0] = wrong
    with pytest.raises(ValueError, match=rf"'x' is BYTES .* type {type(wrong).__name__}"):
        bytescodec.encode(array, "x")


@pytest.mark.parametrize("wire", [b"\1", b"\5\0\0\0ab", b"\1\0\0\0a\1\0", b"\xff\xff\xff\xff"])
def test_cut_strings_are_refused(wire: bytes) -> None:
    with pytest.raises(ResponseError):
        bytescodec.decode(wire)
