"""backend: "tensorrt" in the embedded server on a real GPU, compared with ONNX Runtime.

Needs an NVIDIA GPU, the Python package ``tensorrt`` and cuda-python:  pytest -m gpu tests/embedded
TRITONSMITH_SERVER_ENV names the server's Python environment where it can't be fetched.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tritonclient.grpc as grpc
from onnx import TensorProto, helper
from support.trt.engine_builds import build_engine
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.errors import ServerError
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.onnx_model.profiles import ShapeRange
from tritonsmith_generator.serve import Server
from tritonsmith_generator.trt.request import EngineRequest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not visible_gpus(), reason="this machine has no NVIDIA GPU"),
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt") is None, reason="tensorrt is not installed here"
    ),
]

Arrays = dict[str, "np.ndarray[Any, Any]"]
_SERVER_ENV = os.environ.get("TRITONSMITH_SERVER_ENV")
_FLOAT = TensorProto.FLOAT
_BATCHED = """
backend: "tensorrt"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [16] }
output { name: "y" data_type: TYPE_FP32 dims: [16] }
output { name: "z" data_type: TYPE_FP32 dims: [16] }
"""
_DYNAMIC = """
backend: "tensorrt"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [-1] }
output { name: "y" data_type: TYPE_FP32 dims: [-1] }
"""
_QUEUE = "dynamic_batching { max_queue_delay_microseconds: 200000 }\n"
_ONE = "instance_group { kind: KIND_GPU count: 1 }\n"


def _graph(nodes: Any, inputs: Any, outputs: Any, constants: Any = ()) -> onnx.ModelProto:
    made = helper.make_graph(
        [helper.make_node(op, ins.split(), outs.split()) for op, ins, outs in nodes],
        "test",
        [helper.make_tensor_value_info(*given) for given in inputs],
        [helper.make_tensor_value_info(*given) for given in outputs],
        list(constants),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _perceptron() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    weights = random.standard_normal((16, 16)).astype(np.float32) / 4
    constant = helper.make_tensor("w", _FLOAT, (16, 16), weights.tobytes(), raw=True)
    return _graph(
        [("MatMul", "x w", "m"), ("Relu", "m", "y"), ("Sigmoid", "m", "z")],
        [("x", _FLOAT, ["N", 16])],
        [("y", _FLOAT, ["N", 16]), ("z", _FLOAT, ["N", 16])],
        [constant],
    )


def _add(repository: Any, name: str, model: onnx.ModelProto, config: str, *profiles: Any) -> None:
    folder = repository.add(name, None, config)
    onnx.save(model, folder.parent.parent / f"{name}.onnx")
    build_engine(
        EngineRequest(
            "tensorrt",
            folder.parent.parent / f"{name}.onnx",
            folder / "1" / "model.plan",
            tuple({n: ShapeRange(*shapes) for n, shapes in p.items()} for p in profiles),
        )
    )


@pytest.fixture(scope="module")
def server(module_repository: Any, start_server: Callable[..., Server]) -> Server:
    rows = {"x": ((1, 16), (4, 16), (8, 16))}
    _add(module_repository, "net", _perceptron(), _BATCHED + _QUEUE + _ONE, rows)
    lengths = ({"x": ((1, 1), (1, 8), (4, 64))}, {"x": ((1, 65), (1, 512), (4, 1024))})
    relu = _graph([("Relu", "x", "y")], [("x", _FLOAT, ["N", "L"])], [("y", _FLOAT, ["N", "L"])])
    group = 'instance_group { kind: KIND_GPU count: 2 profile: ["0", "1"] }\n'
    _add(module_repository, "two_profiles", relu, _DYNAMIC + group, *lengths)
    nonzero = _graph(
        [("NonZero", "x", "y")], [("x", _FLOAT, ["N"])], [("y", TensorProto.INT64, [1, "K"])]
    )
    is_old = tensorrt_releases()[0].version[0] < 10
    index = "TYPE_INT32" if is_old else "TYPE_INT64"
    config = f"""
backend: "tensorrt"
input {{ name: "x" data_type: TYPE_FP32 dims: [-1] }}
output {{ name: "y" data_type: {index} dims: [1, -1] }}
"""
    _add(module_repository, "nonzero", nonzero, config + _ONE, {"x": ((1,), (16,), (64,))})
    return start_server(module_repository.path, server_env=_SERVER_ENV)


def _infer(server: Server, model: str, inputs: Arrays, outputs: list[str] | None = None) -> Arrays:
    given = []
    for name, array in inputs.items():
        given.append(grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        given[-1].set_data_from_numpy(array)
    wanted = [grpc.InferRequestedOutput(name) for name in outputs or ()] or None
    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        result = client.infer(model, given, outputs=wanted)
    return {o.name: result.as_numpy(o.name) for o in result.get_response().outputs}


def _directly(repository: Path, model: str, inputs: Mapping[str, Any]) -> Arrays:
    session = ort.InferenceSession(
        str(repository.parent / f"{model}.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def test_no_model_is_left_out(server: Server) -> None:
    assert server.skipped == {}
    assert set(server.models) == {"net", "two_profiles", "nonzero"}


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_outputs_are_those_of_onnxruntime(
    server: Server, module_repository: Any, rows: int
) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, 16), dtype=np.float32)
    got = _infer(server, "net", {"x": x})
    for name, expected in _directly(module_repository.path, "net", {"x": x}).items():
        np.testing.assert_allclose(got[name], expected, atol=5e-3)


def test_one_of_two_outputs(server: Server, module_repository: Any) -> None:
    x = np.ones((2, 16), np.float32)
    got = _infer(server, "net", {"x": x}, ["z"])
    assert list(got) == ["z"]
    expected = _directly(module_repository.path, "net", {"x": x})["z"]
    np.testing.assert_allclose(got["z"], expected, atol=5e-3)


def test_requests_at_once_are_one_batch_and_keep_their_own_rows(
    server: Server, module_repository: Any
) -> None:
    requests = [np.full((2, 16), i, np.float32) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda x: _infer(server, "net", {"x": x}), requests))
    for x, answer in zip(requests, answers, strict=True):
        expected = _directly(module_repository.path, "net", {"x": x})
        np.testing.assert_allclose(answer["y"], expected["y"], atol=5e-2)


@pytest.mark.parametrize("length", [1, 64, 65, 1024])
def test_the_profile_that_fits_is_taken(server: Server, length: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, length), dtype=np.float32)
    assert _infer(server, "two_profiles", {"x": x})["y"].tobytes() == np.maximum(x, 0).tobytes()


def test_a_shape_outside_all_profiles_is_refused_with_the_ranges(server: Server) -> None:
    with pytest.raises(InferenceServerException, match=r"'x' \[1, 65\] to \[4, 1024\]"):
        _infer(server, "two_profiles", {"x": np.zeros((1, 2000), np.float32)})


@pytest.mark.parametrize("ones", [0, 1, 40])
def test_an_output_whose_shape_depends_on_the_data(server: Server, ones: int) -> None:
    x = np.zeros(64, np.float32)
    x[:ones] = 1
    assert _infer(server, "nonzero", {"x": x})["y"].tolist() == [list(range(ones))]


def test_a_plan_that_is_none_is_refused_with_tensorrts_reason(repository: Any) -> None:
    folder = repository.add("broken", None, _BATCHED + _ONE)
    (folder / "1" / "model.plan").write_bytes(b"not a plan" * 100)
    with pytest.raises(ServerError, match=r"cannot load model\.plan"):
        Server(repository.path, server_env=_SERVER_ENV).__enter__()


def test_a_config_that_is_not_the_plans_is_refused(
    repository: Any, server: Server, module_repository: Any
) -> None:
    plan = (module_repository.path / "net" / "1" / "model.plan").read_bytes()
    folder = repository.add("wrong", None, _BATCHED.replace("[16]", "[17]") + _ONE)
    (folder / "1" / "model.plan").write_bytes(plan)
    with pytest.raises(ServerError, match=r"'x' has shape \[-1, 17\]"):
        Server(repository.path, server_env=_SERVER_ENV).__enter__()
