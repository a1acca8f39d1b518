"""A plan is run in TensorRT's process with the server's runner: which profile, which memory, which
types. TensorRT and the driver are stand-ins that compute with ONNX Runtime in the host's memory.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.harness.paths import SIMPLENET
from support.trt import stand_in_tensorrt
from support.trt.stand_in_driver import HOST_MEMORY, compile_library
from support.trt.stand_in_tensorrt import Note

from tritonsmith_client import cuda_driver as cudadriver
from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.onnx_model.reference import run
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.request import PlanAnswers, PlanQuestion
from tritonsmith_generator.trt.run_plan import answers

SMALL = {"input": [[1, 784], [2, 784], [4, 784]]}
LARGE = {"input": [[5, 784], [8, 784], [16, 784]]}


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in driver's library; nothing is left in its memory."""
    compile_library(tmp_path, "libcuda.so.1", HOST_MEMORY)
    path = str(tmp_path / "libcuda.so.1")
    monkeypatch.setattr(cudadriver, "_LIBRARIES", (path,))
    cudadriver.driver.cache_clear()
    library = ctypes.CDLL(path)
    yield library
    cudadriver.driver.cache_clear()
    assert library.live() == 0


def ask(note: Note, folder: Path, *inputs: Mapping[str, Any]) -> PlanAnswers:
    question = PlanQuestion("tensorrt", note.write(folder / "model.plan"), inputs)
    return answers(stand_in_tensorrt, question, lambda: None)


def images(rows: int) -> dict[str, Any]:
    return {"input": np.random.default_rng(rows).random((rows, 784), np.float32)}


def model(
    folder: Path, nodes: list[tuple[str, str, str]], ends: Mapping[str, tuple[int, Any]]
) -> str:
    """Nodes are operator, inputs, outputs; of the ends, those that no node writes are inputs."""
    made = {name for _, _, outputs in nodes for name in outputs.split()}
    values = [helper.make_tensor_value_info(n, *end) for n, end in ends.items()]
    graph = helper.make_graph(
        [helper.make_node(op, ins.split(), outs.split()) for op, ins, outs in nodes],
        "test",
        [value for value in values if value.name not in made],
        [value for value in values if value.name in made],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(proto, folder / "model.onnx")
    return str(folder / "model.onnx")


def test_each_input_is_run_in_the_profile_that_fits(tmp_path: Path, driver: Any) -> None:
    note = Note(str(SIMPLENET), [SMALL, LARGE])
    asked = [images(rows) for rows in (2, 9, 40, 4, 5)]
    given = ask(note, tmp_path, *asked).outputs
    assert [outputs is None for outputs in given] == [rows == 40 for rows in (2, 9, 40, 4, 5)]
    for inputs, outputs in zip(asked, given, strict=True):
        if outputs is not None:
            wanted = run(SIMPLENET, inputs)
            assert np.array_equal(outputs["output"], wanted["output"])


def test_all_types_pass_as_they_are(tmp_path: Path, driver: Any) -> None:
    random = np.random.default_rng(0)
    values: dict[str, Any] = {
        "FLOAT": random.standard_normal((2, 3)).astype(np.float32),
        "FLOAT16": random.standard_normal((2, 3)).astype(np.float16),
        "BFLOAT16": random.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
        "INT64": random.integers(-(2**40), 2**40, (2, 3)),
        "INT32": np.array(7, np.int32),  # a scalar
        "INT8": np.empty((0, 3), np.int8),
        "UINT8": random.integers(0, 255, (2, 3), np.uint8),
        "BOOL": np.array([[True, False, True]]),
    }
    ends = {
        f"{name}{side}": (getattr(TensorProto, name), list(array.shape))
        for name, array in values.items()
        for side in ("", "_out")
    }
    path = model(tmp_path, [("Identity", name, f"{name}_out") for name in values], ends)
    (outputs,) = ask(Note(path, [{}]), tmp_path, values).outputs
    assert outputs is not None
    for name, array in values.items():
        got = outputs[f"{name}_out"]
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert got.tobytes() == array.tobytes()


def test_outputs_whose_shape_follows_from_data(tmp_path: Path, driver: Any) -> None:
    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    ends = {"x": (float32, ["N"]), "y": (int64, [1, "K"]), "z": (float32, ["N"])}
    path = model(tmp_path, [("NonZero", "x", "y"), ("Relu", "x", "z")], ends)
    note = Note(path, [{"x": [[1], [8], [64]]}], growing=["y"])
    asked = [np.array(x, np.float32) for x in ([0, 0, 0], [1, 0, 1, 1], [0, -1])]
    for x, outputs in zip(
        asked, ask(note, tmp_path, *({"x": x} for x in asked)).outputs, strict=True
    ):
        assert outputs is not None
        assert outputs["y"].tolist() == [np.flatnonzero(x).tolist()]
        assert outputs["z"].tolist() == np.maximum(x, 0).tolist()


def test_values_that_say_shapes_are_read_on_the_host(tmp_path: Path, driver: Any) -> None:
    ends = {
        "x": (TensorProto.FLOAT, [12]),
        "to": (TensorProto.INT64, [2]),
        "y": (TensorProto.FLOAT, ["a", "b"]),
    }
    path = model(tmp_path, [("Reshape", "x to", "y")], ends)
    x = np.arange(12, dtype=np.float32)
    asked = [{"x": x, "to": np.array(to, np.int64)} for to in ([3, 4], [6, 2])]
    given = ask(Note(path, [{}], on_host=["to"]), tmp_path, *asked).outputs
    assert [outputs["y"].shape for outputs in given if outputs is not None] == [(3, 4), (6, 2)]


def test_memory_that_the_gpu_has_not(tmp_path: Path, driver: Any) -> None:
    driver.set_limit(1000)
    with pytest.raises(HostError, match=r"^cuMemAlloc_v2 of .*: out of memory \(CUDA error 2\)"):
        ask(Note(str(SIMPLENET), [SMALL]), tmp_path, images(2))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("load", "^it does not load: it was built for another GPU$"),
        ("context", "^no execution context: out of memory$"),
        ("run", "^TensorRT could not run the plan: an illegal memory access was encountered$"),
        ("bug", "^TypeError: incompatible function arguments$"),
    ],
)
def test_what_fails_is_told(tmp_path: Path, driver: Any, fault: str, said: str) -> None:
    with pytest.raises(HostError, match=said):
        ask(Note(str(SIMPLENET), [SMALL], fault=fault), tmp_path, images(2))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes that are started from now on find the stand-ins: libraries and the module."""
    compile_library(tmp_path, "libcuda.so.1", HOST_MEMORY)
    for name in ("tensorrt", "tensorrt_rtx"):
        (tmp_path / f"{name}.py").write_text(
            "from support.trt.stand_in_tensorrt import *\n"
            "from support.trt.stand_in_tensorrt import __version__\n"
        )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def process_answers(note: Note, folder: Path, library: Library = "tensorrt") -> PlanAnswers:
    question = PlanQuestion(library, note.write(folder / "model.plan"), (images(3),))
    with LOCAL.process(library) as process:
        return process.ask(question, lambda _: None)


def test_the_process_of_the_build_answers(library: Path) -> None:
    (outputs,) = process_answers(Note(str(SIMPLENET), [SMALL]), library).outputs
    assert outputs is not None
    assert np.array_equal(outputs["output"], run(SIMPLENET, images(3))["output"])


def test_a_plan_that_crashes_the_process_is_told(library: Path) -> None:
    with pytest.raises(HostError, match="the run of the plan was ended by SIGSEGV"):
        process_answers(Note(str(SIMPLENET), [SMALL], fault="crash"), library)


def test_a_plan_for_rtx_may_be_for_other_gpus(library: Path) -> None:
    note = Note(str(SIMPLENET), [SMALL], fault="load")
    found = process_answers(note, library, "tensorrt_rtx")
    assert found.skipped == "it does not load: it was built for another GPU (is it for other GPUs?)"
