"""Recipes by target, the runner's checks, pruning and simplification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file, reference
from tritonsmith_generator.passes import (
    Condition,
    Options,
    PassProgress,
    PassResult,
    Samples,
    for_precision,
    run,
)
from tritonsmith_generator.passes.graph.simplify import Simplify
from tritonsmith_generator.passes.graph.sparse import Sparse, is_sparse, prune
from tritonsmith_generator.passes.graph.tidy import Tidy
from tritonsmith_generator.passes.quantize.modelopt import Int4
from tritonsmith_generator.spec.quantization import Quantization

Write = Callable[..., Path]
Apply = Callable[..., Any]

rng = np.random.default_rng(7)
X = rng.standard_normal((4, 8)).astype(np.float32)
MLP = "g (float[b,8] x) => (float[b,8] y) <float[8,8] w> { h = MatMul(x, w)  y = Relu(h) }"
W = {"w": rng.standard_normal((8, 8)).astype(np.float32)}

RECIPES = {
    ("fp32", "tensorrt_rtx", "1.7"): [],
    ("tf32", "tensorrt", "10.13.3.9"): [],
    ("fp16", "tensorrt", "10.13.3.9"): ["tidy", "fp16"],
    ("bf16", "tensorrt", "11.4.0"): ["tidy", "opset", "bf16"],
    ("int8", "tensorrt_rtx", "1.7"): ["tidy", "opset", "int8", "fp16"],
    ("fp8", "tensorrt_rtx", "1.7"): ["tidy", "opset", "fp8", "fp16"],
    ("int4", "tensorrt_rtx", "1.7"): ["tidy", "opset", "int4", "fp16"],
    ("fp16", "tensorrt", "8.6.0"): [],
    ("int8", "tensorrt", "8.6.0"): ["tidy", "opset", "int8"],
    ("int8", "onnxruntime", "1.31.1"): ["tidy", "opset", "int8"],
}


@pytest.mark.parametrize("target", RECIPES, ids=" ".join)
def test_a_target_s_recipe(target: Any) -> None:
    recipe = for_precision(*target)
    assert [step.name for step in recipe.passes] == RECIPES[target]
    assert not recipe.sparse_weights


def test_int4_has_the_blocks_that_the_target_takes() -> None:
    quantize = for_precision("int4", "tensorrt", "10.13").passes[2]
    assert isinstance(quantize, Int4) and quantize.options.block_size == 64
    small = Options(quantization=Quantization(block_size=16))
    assert for_precision("int4", "tensorrt_rtx", "1.7", small).passes
    with pytest.raises(InputError, match="with target tensorrt it must be one of 64, 128"):
        for_precision("int4", "tensorrt", "10.13", small)


def test_preparation_comes_first() -> None:
    recipe = for_precision("fp16", "tensorrt_rtx", "1.7", Options(simplify=True, sparse=True))
    assert [step.name for step in recipe.passes] == ["tidy", "simplify", "sparse", "fp16"]
    assert recipe.sparse_weights


@pytest.mark.parametrize("precision", ["bf16", "fp8", "int4"])
def test_what_tensorrt_8_has_not_is_said(precision: Any) -> None:
    with pytest.raises(
        InputError, match=f"TensorRT 8.6.0 has no precision {precision}; it has: .*10"
    ):
        for_precision(precision, "tensorrt", "8.6.0")


def test_keep_where_it_has_no_effect_is_refused() -> None:
    with pytest.raises(InputError, match="keep has no effect with precision fp16 on TensorRT 8.6"):
        for_precision("fp16", "tensorrt", "8.6.0", Options(keep=("a",)))


# --- the runner ----------------------------------------------------------------------------


def test_progress_reports_and_only_the_last_files(write: Write, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    model = write(MLP, W)
    before = model.read_bytes()
    seen: list[PassProgress] = []
    recipe = for_precision("bf16", "tensorrt_rtx", "1.7")
    result = run(recipe.passes, model, work, seen.append)
    assert [(p.name, p.step, p.steps) for p in seen] == [
        ("tidy", 0, 3),
        ("opset", 1, 3),
        ("bf16", 2, 3),
    ]
    assert [report.name for report in result.reports] == ["tidy", "opset", "bf16"]
    assert [path for path in work.rglob("*") if path.is_file()] == [result.model]
    assert model.read_bytes() == before
    last = result.reports[-1]
    assert (last.lowered, last.bytes_after) == (2, result.model.stat().st_size)
    assert last.bytes_before > last.bytes_after


@dataclass(frozen=True)
class Liar:
    name: str = "liar"
    requires: tuple[Condition, ...] = ()
    ensures: tuple[Condition, ...] = (Condition("a sky of cheese", lambda proto: "it is blue"),)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        return Tidy().apply(model, workdir)


def test_a_pass_that_breaks_its_word_is_caught(write: Write, tmp_path: Path) -> None:
    message = r"pass liar \(after tidy\) did not make sure of: a sky of cheese; but it is blue"
    with pytest.raises(InputError, match=message):
        run((Tidy(), Liar()), write(MLP, W), tmp_path)


def test_an_error_says_after_which_passes(write: Write, tmp_path: Path) -> None:
    recipe = for_precision("fp16", "tensorrt_rtx", "1.7", Options(keep=("nothing",)))
    with pytest.raises(InputError, match=r"pass fp16 \(after tidy\): keep: 'nothing' fits no node"):
        run(recipe.passes, write(MLP, W), tmp_path)


# --- 2:4 sparsity --------------------------------------------------------------------------


def test_pruning_keeps_the_two_largest_of_four() -> None:
    weight = np.array([[1, -4, 3, 2, 8, 0, 0, 1]], np.float32)
    assert prune(weight, 1).tolist() == [[0, -4, 3, 0, 8, 0, 0, 1]]
    assert prune(weight.T, 0).T.tolist() == prune(weight, 1).tolist()
    assert not is_sparse(weight, 1)
    kernel = rng.standard_normal((6, 8, 3, 3)).astype(np.float32)
    pruned = prune(kernel, 1)
    assert is_sparse(pruned, 1)
    assert np.count_nonzero(pruned) == kernel.size // 2
    assert np.array_equal(pruned[pruned != 0], kernel[pruned != 0])


def test_each_layer_is_pruned_along_its_input_channel(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8,4,4] x) => (float[b,5] y) <float[8,8,3,3] k, float[12,8] g1,
        float[12,8] m, float[8,6] odd, float[6,5] six> {
        a = Conv<pads = [1, 1, 1, 1]>(x, k)  c = GlobalAveragePool(a)  d = Flatten(c)
        e = Gemm<transB = 1>(d, g1)  f = MatMul(e, m)  h = MatMul(f, odd)  y = MatMul(h, six) }"""
    shapes = {"k": (8, 8, 3, 3), "g1": (12, 8), "m": (12, 8), "odd": (8, 6), "six": (6, 5)}
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    result = apply(Sparse(keep=("MatMul_2",)), write(graph, weights))
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(result.model).graph.initializer}
    assert is_sparse(stored["k"], 1)
    assert is_sparse(stored["g1"], 1)
    assert is_sparse(stored["m"], 0)
    assert np.array_equal(stored["odd"], weights["odd"])
    assert result.report.kept == {
        "MatMul_2": "asked for",
        "MatMul_3": "6 input channels are no multiple of 4",
    }
    assert "3 weights were pruned" in result.report.notes[0]


def test_a_weight_with_two_roles_stays_dense(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  y = Gemm<transB = 1>(h, w) }"""
    with pytest.raises(InputError, match="nothing can be pruned .*'w' is used in other ways"):
        apply(Sparse(), write(graph, W))


# --- simplification ------------------------------------------------------------------------


def test_simplify_folds_and_keeps_the_answers(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        one = Constant<value = float {1.0}>()  two = Add(one, one)  three = Add(two, one)
        v = Mul(w, three)  h = MatMul(x, v)  i = Identity(h)  y = Relu(i) }"""
    model = write(graph, W)
    result = apply(Simplify(), model)
    assert result.report.nodes == 2
    want, got = reference.run(model, {"x": X}), reference.run(result.model, {"x": X})
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-5, atol=1e-6)
    assert onnx_file.signature_of(onnx_file.read(result.model).proto).inputs[0].shape == ("b", 8)


def test_what_onnxslim_gets_wrong_is_dropped(write: Write, apply: Apply) -> None:
    """It folds ``value_float`` constants (onnxslim 0.1.98) into FP64 and breaks the graph."""
    graph = """g (float[b,8] x) => (float[b,8] y) {
        one = Constant<value_float = 1.0>()  two = Add(one, one)  y = Mul(x, two) }"""
    model = write(graph)
    result = apply(Simplify(), model)
    np.testing.assert_array_equal(reference.run(result.model, {"x": X})["y"], 2 * X)


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda proto: proto.graph.node[0].ClearField("op_type"), "dropped: "),
        (lambda proto: setattr(proto.graph.node[-1], "op_type", "Neg"), "output 'y' changed"),
        (lambda proto: proto.graph.output.pop(), "inputs or outputs changed"),
    ],
    ids=["invalid", "wrong", "other outputs"],
)
def test_a_simplified_model_that_differs_is_dropped(
    damage: Callable[[onnx.ModelProto], Any],
    note: str,
    write: Write,
    apply: Apply,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def broken(source: str, target: str) -> None:
        proto = onnx.load(source)
        damage(proto)
        onnx.save(proto, target)

    monkeypatch.setattr("onnxslim.slim", broken)
    model = write(MLP, W)
    np.savez(tmp_path / "s.npz", x=X)
    result = apply(Simplify(Samples(str(tmp_path / "s.npz"))), model)
    assert note in result.report.notes[0]
    assert reference.run(result.model, {"x": X})["y"].min() >= 0
