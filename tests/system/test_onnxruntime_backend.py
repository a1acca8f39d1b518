"""backend: "onnxruntime" in the embedded server, compared with ONNX Runtime run directly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tritonclient.grpc as grpc
from onnx import TensorProto, helper
from support.servers import BriefServer
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritonsmith_client import Client
from tritonsmith_client.dtypes import DATA_TYPES, DataType
from tritonsmith_generator.serve.server_base import ServerBase

Arrays = dict[str, "np.ndarray[Any, Any]"]

_MATMUL = 'input {{ name: "x" data_type: TYPE_FP32 dims: [{dims}] }}'


def _wait_for_rows(rows: int) -> str:
    """Requests wait in the queue until they are so many rows together, and not a moment longer."""
    return (
        f"dynamic_batching {{ preferred_batch_size: {rows} "
        "max_queue_delay_microseconds: 20000000 }\n"
    )


@pytest.fixture(scope="module")
def filled(module_repository: Any, make_graph: Any) -> Path:
    """A repository with all the models of these tests."""
    repository = module_repository
    for dtype in DATA_TYPES:
        repository.add_identity(f"identity_{dtype.wire.lower()}", dtype.config, dtype.onnx)
    repository.add_add_sub("plain")
    repository.add_add_sub("batched", _wait_for_rows(8))
    repository.add(
        "unbatched",
        make_graph(
            [("ReduceSum", "x", "total"), ("Shape", "x", "shape")],
            [("x", TensorProto.FLOAT, ["A", "B"])],
            [("total", TensorProto.FLOAT), ("shape", TensorProto.INT64)],
        ),
        """
backend: "onnxruntime"
input { name: "x" data_type: TYPE_FP32 dims: [-1, -1] }
output { name: "total" data_type: TYPE_FP32 dims: [1, 1] }
output { name: "shape" data_type: TYPE_INT64 dims: [2] }
instance_group { kind: KIND_CPU }
""",
    )
    repository.add(
        "dynamic",
        make_graph(
            [("Relu", "x", "y")],
            [("x", TensorProto.FLOAT, ["N", "L"])],
            [("y", TensorProto.FLOAT)],
        ),
        """
backend: "onnxruntime"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [-1] allow_ragged_batch: true }
output { name: "y" data_type: TYPE_FP32 dims: [-1] }
instance_group { kind: KIND_CPU }
"""
        + _wait_for_rows(4),
    )
    repository.add("counting", _counter(), _COUNTING + _wait_for_rows(8))
    repository.add("picky", _divider(), _PICKY + _wait_for_rows(3))
    repository.add("tuned", _divider(), _PICKY + _TUNED)
    repository.add("optional", _with_default(), _OPTIONAL)
    path: Path = repository.path
    return path


@pytest.fixture(scope="module")
def server(filled: Path, start_any_server: Callable[..., ServerBase]) -> ServerBase:
    return start_any_server(filled)


def _counter() -> onnx.ModelProto:
    """y is, for each row, the shape of the x that the model was run with."""
    made = helper.make_graph(
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Cast", ["shape"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["x", "x"], ["zeros"]),
            helper.make_node("Add", ["zeros", "numbers"], ["y"]),
        ],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_COUNTING = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [1] }
output { name: "y" data_type: TYPE_FP32 dims: [2] }
instance_group { kind: KIND_CPU count: 1 }
"""


def _divider() -> onnx.ModelProto:
    """y = table[x]: fails for an x outside 0..3."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [10.0, 11.0, 12.0, 13.0])
    made = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [table],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_PICKY = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_INT64 dims: [1] }
output { name: "y" data_type: TYPE_FP32 dims: [1] }
instance_group { kind: KIND_CPU }
"""
_TUNED = """
optimization { graph { level: -1 } }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "2" } }
parameters { key: "execution_mode" value { string_value: "1" } }
parameters { key: "enable_mem_arena" value { string_value: "0" } }
parameters { key: "enable_mem_pattern" value { string_value: "false" } }
parameters { key: "session.use_device_allocator_for_initializers" value { string_value: "1" } }
"""


def _with_default() -> onnx.ModelProto:
    """y = x + bias, where bias has a default."""
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [1], [100.0])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in _SHAPES.items()]
    made = helper.make_graph(
        [helper.make_node("Add", ["x", "bias"], ["y"])], "test", values[:2], values[2:], [bias]
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_SHAPES: dict[str, list[int | str]] = {"x": ["A"], "bias": [1], "y": ["A"]}
_OPTIONAL = """
backend: "onnxruntime"
input [ { name: "x" data_type: TYPE_FP32 dims: [-1] },
        { name: "bias" data_type: TYPE_FP32 dims: [1] optional: true } ]
output { name: "y" data_type: TYPE_FP32 dims: [-1] }
instance_group { kind: KIND_CPU }
"""


@pytest.fixture(scope="module")
def client(server: ServerBase) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as made:
        yield made


def _infer(
    client: grpc.InferenceServerClient,
    model: str,
    inputs: Arrays,
    outputs: list[str] | None = None,
) -> Arrays:
    given = []
    for name, array in inputs.items():
        given.append(grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        given[-1].set_data_from_numpy(array)
    wanted = [grpc.InferRequestedOutput(name) for name in outputs or ()]
    result = client.infer(model, given, outputs=wanted or None)
    return {o.name: result.as_numpy(o.name) for o in result.get_response().outputs}


def _directly(repository: Path, model: str, inputs: Arrays) -> Arrays:
    path = repository / model / "1" / "model.onnx"
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _values(dtype: DataType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(7)
    if dtype.wire == "BYTES":
        words = ["", "a", "naïve", "\u4e2d\u6587", "x" * 300, "nul\0inside"]
        return np.array(random.choice(words, shape).tolist(), dtype=object).reshape(shape)
    if dtype.wire == "BOOL":
        return random.integers(0, 2, shape).astype(np.bool_)
    raw = random.integers(0, 256, (*shape, dtype.numpy.itemsize), dtype=np.uint8)
    array: np.ndarray[Any, Any] = raw.view(dtype.numpy).reshape(shape)
    return array


@pytest.mark.parametrize("dtype", DATA_TYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 1000)], ids=str)
def test_every_data_type_comes_back_bit_by_bit(
    client: Any, dtype: DataType, shape: tuple[int, ...]
) -> None:
    """Random bits: NaNs, infinities and denormal numbers are among them."""
    sent = _values(dtype, shape)
    got = _infer(client, f"identity_{dtype.wire.lower()}", {"x": sent})["y"]
    assert got.shape == shape
    if dtype.wire == "BYTES":
        assert [text.decode() for text in got.reshape(-1)] == list(sent.reshape(-1))
    else:
        assert got.dtype == dtype.numpy
        assert got.tobytes() == sent.tobytes()


@pytest.mark.parametrize("dtype", DATA_TYPES, ids=str)
def test_every_data_type_comes_back_over_http(server: ServerBase, dtype: DataType) -> None:
    sent = _values(dtype, (3, 5))
    with Client(server.http_url) as client:
        got = client.model(f"identity_{dtype.wire.lower()}")(sent)["y"]
    if dtype.wire == "BYTES":
        assert [text.decode() for text in got.reshape(-1)] == list(sent.reshape(-1))
    else:
        assert got.tobytes() == sent.tobytes()


@pytest.mark.parametrize("dtype", DATA_TYPES, ids=str)
def test_a_batch_of_rows_without_elements(client: Any, dtype: DataType) -> None:
    sent = np.empty((2, 0), dtype.numpy)
    got = _infer(client, f"identity_{dtype.wire.lower()}", {"x": sent})["y"]
    assert got.shape == (2, 0)


def test_outputs_are_those_of_onnxruntime(client: Any, module_repository: Any) -> None:
    random = np.random.default_rng(1)
    for rows in (1, 5, 8):
        inputs = {n: random.standard_normal((rows, 4), dtype=np.float32) for n in "ab"}
        got = _infer(client, "plain", inputs)
        expected = _directly(module_repository.path, "plain", inputs)
        assert {n: a.tobytes() for n, a in got.items()} == {
            n: a.tobytes() for n, a in expected.items()
        }


def test_only_the_requested_outputs_are_sent(client: Any) -> None:
    inputs = {n: np.ones((1, 4), np.float32) for n in "ab"}
    assert list(_infer(client, "plain", inputs, ["diff"])) == ["diff"]


def test_without_batching_the_whole_shape_is_the_models(client: Any) -> None:
    got = _infer(client, "unbatched", {"x": np.full((3, 5), 2, np.float32)})
    assert got["total"].tolist() == [[30.0]]
    assert got["shape"].tolist() == [3, 5]


def test_an_input_with_a_default_may_be_left_out(client: Any) -> None:
    x = np.array([1, 2], np.float32)
    assert _infer(client, "optional", {"x": x})["y"].tolist() == [101, 102]
    given = {"x": x, "bias": np.array([5], np.float32)}
    assert _infer(client, "optional", given)["y"].tolist() == [6, 7]


def test_session_options_are_accepted(client: Any) -> None:
    assert _infer(client, "tuned", {"x": np.array([[3]])})["y"].tolist() == [[13.0]]


def _at_once(client: Any, model: str, requests: list[Arrays]) -> list[Arrays | Exception]:
    """Send the requests so that they wait in the server's queue together."""

    def send(inputs: Arrays) -> Arrays | Exception:
        try:
            answer: Arrays = _infer(client, model, inputs)
            return answer
        except InferenceServerException as exc:
            error: Exception = exc
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(send, requests))


def test_requests_are_run_as_one_batch_and_split_again(client: Any) -> None:
    requests = [{n: np.full((2, 4), i, np.float32) for n in "ab"} for i in range(4)]
    answers = _at_once(client, "batched", requests)
    for i, answer in enumerate(answers):
        assert isinstance(answer, dict), answer
        assert answer["sum"].tolist() == [[2 * i] * 4] * 2
        assert answer["diff"].tolist() == [[0] * 4] * 2
    deadline = time.monotonic() + 20  # the server counts after it has answered
    while (seen := client.get_inference_statistics("batched").model_stats[0]).inference_count < 8:
        assert time.monotonic() < deadline
    assert (seen.inference_count, seen.execution_count) == (8, 1)


def test_the_model_itself_runs_once_for_a_batch(client: Any) -> None:
    answers = _at_once(client, "counting", [{"x": np.zeros((2, 1), np.float32)}] * 4)
    for answer in answers:
        assert isinstance(answer, dict), answer
        assert answer["y"].tolist() == [[8, 1], [8, 1]]


def test_requests_of_different_lengths_are_answered_each_in_its_own(client: Any) -> None:
    requests = [{"x": np.full((1, length), -length, np.float32)} for length in (3, 5, 3, 7)]
    for request, answer in zip(requests, _at_once(client, "dynamic", requests), strict=True):
        assert isinstance(answer, dict), answer
        assert answer["y"].tolist() == np.maximum(request["x"], 0).tolist()


def test_a_bad_request_does_not_fail_its_neighbors(client: Any) -> None:
    answers = _at_once(client, "picky", [{"x": np.array([[i]])} for i in (0, 99, 3)])
    good, bad, also_good = answers
    assert isinstance(good, dict)
    assert good["y"].tolist() == [[10.0]]
    assert isinstance(bad, InferenceServerException)
    assert "out of data bounds" in str(bad.message())
    assert isinstance(also_good, dict)
    assert also_good["y"].tolist() == [[13.0]]


def test_strings_that_are_not_utf8_are_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="input 'x': ONNX Runtime takes UTF-8"):
        _infer(client, "identity_bytes", {"x": np.array([[b"\xff\xfe"]], dtype=object)})


def test_bfloat16_is_computed_not_only_copied(client: Any) -> None:
    """The test of the types proves bits; this, that they stand for bfloat16."""
    sent = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    got = _infer(client, "identity_bf16", {"x": sent})["y"]
    assert got.astype(np.float32).tolist() == [[1.5, -2.0]]


_IDENTITY = """
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "{name}" data_type: {dtype} dims: [{dims}] }}
output {{ name: "y" data_type: {dtype} dims: [-1] }}
instance_group {{ kind: KIND_CPU }}
{extra}
"""
_PARAMETER = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}'


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "z"}, "the config names input 'z', which the model file has not; it has: x"),
        ({"dtype": "TYPE_FP16"}, "'x' is TYPE_FP16 in the config and TYPE_FP32 in the model file"),
        ({"dims": "2, 2"}, "'x' has shape [-1, 2, 2] in the config"),
        ({"extra": _PARAMETER.format("execution_mode", "2")}, "allowed are 0 and 1"),
        ({"extra": _PARAMETER.format("enable_mem_arena", "maybe")}, "allowed are 1, true, 0 and"),
        ({"extra": _PARAMETER.format("intra_op_thread_count", "many")}, "must be a whole number"),
        ({"extra": 'default_model_filename: "other.onnx"'}, "there is no file"),
        (
            {
                "extra": "optimization { execution_accelerators "
                '{ cpu_execution_accelerator { name: "openvino" } } }'
            },
            "wants ONNX Runtime's OpenVINOExecutionProvider",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_config_that_does_not_fit_the_model_is_refused_with_the_reason(
    repository: Any, change: dict[str, str], reason: str
) -> None:
    from tritonsmith_generator.errors import ServerError

    repository.add_identity("wrong", "TYPE_FP32", TensorProto.FLOAT)
    values = {"name": "x", "dtype": "TYPE_FP32", "dims": "-1", "extra": ""} | change
    config = 'name: "wrong"\n' + _IDENTITY.format(**values)
    (repository.path / "wrong" / "config.pbtxt").write_text(config)
    with pytest.raises(ServerError) as caught, BriefServer(repository.path):
        pass
    assert "could not load wrong" in str(caught.value)
    assert reason in str(caught.value)
