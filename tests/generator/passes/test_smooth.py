"""SmoothQuant: the same answers before, better ones after INT8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.onnx_model import reference
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.passes.quantize.smooth import Smooth
from tritonsmith_generator.spec.quantization import Quantization

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]
Apply = Callable[..., Any]
Plan = Callable[[Path], int]

rng = np.random.default_rng(9)
X = rng.standard_normal((64, 8)).astype(np.float32)
# Channels of one activation from 0.01 to 100, read by two layers in either layout.
GRAPH = """g (float[b,8] x) => (float[b,8] y) <float[8] scale, float[8] shift, float[8,8] w,
    float[8,8] v> {
    n = LayerNormalization<axis = -1>(x, scale, shift)  h = MatMul(n, w)
    i = Gemm<transB = 1>(n, v)  y = Add(h, i) }"""
OUTLIERS = np.logspace(-2, 2, 8, dtype=np.float32)
WEIGHTS = {
    "scale": OUTLIERS,
    "shift": np.zeros(8, np.float32),
    "w": rng.standard_normal((8, 8)).astype(np.float32) / OUTLIERS[:, None],
    "v": rng.standard_normal((8, 8)).astype(np.float32) / OUTLIERS,
}


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    np.savez(tmp_path / "s.npz", x=X)
    return Samples(str(tmp_path / "s.npz"))


def off_by(original: Path, converted: Path) -> float:
    want, got = reference.run(original, {"x": X}), reference.run(converted, {"x": X})
    return measure([want["y"]], [got["y"]]).relative_l2


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_answers_stay_as_they_were(
    strength: float, write: Write, apply: Apply, samples: Samples, tmp_path: Path
) -> None:
    model = write(GRAPH, WEIGHTS)
    result = apply(Smooth(samples, strength=strength), model)
    assert off_by(model, result.model) < 1e-6
    assert result.report.notes == ("1 activations were evened out for 2 layers",)
    assert [path.name for path in result.model.parent.iterdir()] == ["model.onnx"]


def test_int8_is_better_with_it(write: Write, samples: Samples, plan: Plan, tmp_path: Path) -> None:
    model = write(GRAPH, WEIGHTS)
    error = {}
    for smooth in (None, 0.7):
        folder = tmp_path / str(smooth)
        folder.mkdir()
        options = Options(samples=samples, quantization=Quantization(smooth=smooth))
        recipe = for_precision("int8", "tensorrt_rtx", "1.7", options)
        result = run(recipe.passes, model, folder)
        error[smooth] = off_by(model, result.model)
        assert plan(result.model) > 0
    assert error[0.7] < 0.03
    assert error[None] > 5 * error[0.7]


def test_what_is_kept_is_not_touched(write: Write, apply: Apply, samples: Samples) -> None:
    result = apply(Smooth(samples, keep=("MatMul_1",)), write(GRAPH, WEIGHTS))
    stored = {t.name for t in onnx.load(result.model).graph.initializer}
    assert "w" in stored and "v" not in stored
    assert result.report.kept == {"MatMul_1": "asked for"}


def test_a_weight_with_two_roles_is_not_changed_for_the_other(
    write: Write, apply: Apply, samples: Samples
) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y, float[8,8] z) <float[8,8] w> {
        h = MatMul(x, w)  i = Exp(h)  y = MatMul(i, w)  z = Identity(w) }"""
    model = write(graph, {"w": WEIGHTS["w"] / 100})
    result = apply(Smooth(samples), model)
    want, got = reference.run(model, {"x": X}), reference.run(result.model, {"x": X})
    assert np.array_equal(want["z"], got["z"])
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-4)
