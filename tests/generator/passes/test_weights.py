"""Models whose weights lie in files of their own, as those over 2 GB must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.onnx_model import onnx_file, reference
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.passes.model import read_model
from tritonsmith_generator.precision.search import answers

Write = Callable[..., Path]
Plan = Callable[[Path], int]

rng = np.random.default_rng(8)
X = rng.standard_normal((16, 64)).astype(np.float32)
MLP = """g (float[b,64] x) => (float[b,64] y) <float[64,64] w, float[64] bias, int64[2] shape> {
    a = Gemm<transB = 1>(x, w, bias)  c = Relu(a)  d = MatMul(c, w)  y = Reshape(d, shape) }"""
WEIGHTS = {
    "w": rng.standard_normal((64, 64)).astype(np.float32),
    "bias": rng.standard_normal(64).astype(np.float32),
    "shape": np.array([-1, 64]),
}


@pytest.fixture
def inline(write: Write) -> Path:
    return write(MLP, WEIGHTS)


@pytest.fixture
def external(inline: Path, tmp_path: Path) -> Path:
    """A model with every weight, the shape too, in an external file."""
    folder = tmp_path / "external"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(
        onnx.load(inline),
        path,
        save_as_external_data=True,
        location="all.bin",
        size_threshold=0,
    )
    assert onnx_file.read(path).external == ("all.bin",)
    return path


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a model of some kilobytes as one of some gigabytes."""
    monkeypatch.setattr("tritonsmith_generator.passes.model.INLINE_LIMIT", 1000)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_external_in_external_out(
    precision: Any, inline: Path, external: Path, small_limit: None, plan: Plan, tmp_path: Path
) -> None:
    np.savez(tmp_path / "s.npz", x=X)
    samples = Samples(str(tmp_path / "s.npz"))
    recipe = for_precision(precision, "tensorrt_rtx", "1.7", Options(samples=samples))
    work = tmp_path / "work"
    work.mkdir()
    result = run(recipe.passes, external, work)
    assert onnx_file.read(result.model).external == ("model.onnx.data",)
    assert sorted(p.name for p in work.rglob("*") if p.is_file()) == [
        "model.onnx",
        "model.onnx.data",
    ]
    want = reference.run(inline, {"x": X})["y"]
    got = answers(result.model, [{"x": X}], tmp_path)[0]["y"]
    assert measure([want], [got]).relative_l2 < 0.03
    assert plan(result.model) > 0


def test_sparsity_and_external_weights(external: Path, small_limit: None, tmp_path: Path) -> None:
    recipe = for_precision("fp32", "tensorrt_rtx", "1.7", Options(sparse=True, simplify=True))
    with pytest.raises(Exception, match="'w' is used in other ways"):
        run(recipe.passes, external, tmp_path)


@pytest.mark.parametrize("limit", [1 << 30, 1000])
def test_every_type_is_written_as_it_was_read(
    limit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tritonsmith_generator.passes.model.INLINE_LIMIT", limit)
    values = rng.integers(-8, 7, (64, 64))
    arrays = {
        name: values.astype(dtype)
        for name, dtype in {
            "fp32": np.float32,
            "fp64": np.float64,
            "fp16": np.float16,
            "bf16": ml_dtypes.bfloat16,
            "fp8": ml_dtypes.float8_e4m3fn,
            "int8": np.int8,
            "int4": ml_dtypes.int4,
            "int64": np.int64,
            "bool": np.bool_,
        }.items()
    }
    tensors = [numpy_helper.from_array(a, name) for name, a in arrays.items()]
    listed = onnx.helper.make_tensor("listed", TensorProto.FLOAT, [512], np.arange(512.0))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["fp32"], ["y"])],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [*tensors, listed],
    )
    opsets = [onnx.helper.make_opsetid("", 21)]
    path = tmp_path / "in.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    for _ in range(2):  # the second time it reads what it wrote
        (tmp_path / "out").mkdir(exist_ok=True)
        path = read_model(path).write(tmp_path / "out" / f"m{_}.onnx")
        stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        for name, array in {**arrays, "listed": np.arange(512, dtype=np.float32)}.items():
            assert stored[name].dtype == array.dtype
            assert np.array_equal(stored[name], array), name
    assert bool(onnx_file.read(path).external) == (limit == 1000)
