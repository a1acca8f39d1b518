"""FP8 and INT4 by NVIDIA ModelOpt: run where it is installed; elsewhere its absence is tested."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness.needs import needs_modelopt
from support.harness.paths import ROOT

from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.onnx_model import onnx_file, reference
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.passes.graph.simplify import Simplify
from tritonsmith_generator.passes.quantize.modelopt import Fp8, Int4

Write = Callable[..., Path]
Apply = Callable[..., Any]
Plan = Callable[[Path], int]

CONSTRAINTS = ROOT / "constraints.txt"

rng = np.random.default_rng(3)
X = rng.standard_normal((64, 48)).astype(np.float32)
# transB as in every exported torch Linear; 48 and 32 input channels: blocks of 16.
MLP = """g (float[b,48] x) => (float[b,16] y) <float[32,48] w, float[16,32] v> {
    h = Gemm<transB = 1>(x, w)  i = Relu(h)  y = Gemm<transB = 1>(i, v) }"""
COMPUTED = """g (float[b,32] x) => (float[b,48] y) <float[32,48] w> {
    v = Abs(w)  y = MatMul(x, v) }"""
WEIGHTS = {
    "w": rng.standard_normal((32, 48)).astype(np.float32),
    "v": rng.standard_normal((16, 32)).astype(np.float32),
}


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    np.savez(tmp_path / "s.npz", x=X)
    return Samples(str(tmp_path / "s.npz"))


@pytest.mark.parametrize("precision", ["fp8", "int4"])
def test_without_modelopt_the_message_is_the_pip_command(
    precision: Any,
    write: Write,
    samples: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)  # where it is installed, it is hidden
    recipe = for_precision(precision, "tensorrt_rtx", "1.7", Options(samples=samples))
    (tested,) = re.findall("^nvidia-modelopt==.*$", CONSTRAINTS.read_text(), re.MULTILINE)
    command = f"pip install --no-deps {tested} && pip install 'tritonsmith[modelopt]'"
    with pytest.raises(HostError, match=re.escape(command)):
        run(recipe.passes, write(MLP, WEIGHTS, opset=21, ir_version=10), tmp_path)


@needs_modelopt
@pytest.mark.parametrize(
    ("precision", "limit"), [("fp8", 0.08), ("int4", 0.15)], ids=["fp8", "int4"]
)
@pytest.mark.parametrize("given", [True, False], ids=["samples", "no samples"])
def test_quantized_is_near_fp32_and_tensorrt_takes_it(
    precision: Any,
    limit: float,
    given: bool,
    write: Write,
    samples: Samples,
    plan: Plan,
    emulate: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    """A dynamic batch (ModelOpt quantizes nothing then), transB (wrong axis), FP16 around it."""
    options = Options(samples=samples if given else None)
    recipe = for_precision(precision, "tensorrt_rtx", "1.7", options)
    model = write(MLP, WEIGHTS)
    if precision == "fp8" and not given:
        with pytest.raises(InputError, match="accuracy.samples"):
            run(recipe.passes, model, tmp_path)
        return
    result = run(recipe.passes, model, tmp_path)
    assert result.reports[-1].dequantize == {"fp8": 4, "int4": 2}[precision]
    want = reference.run(model, {"x": X})["y"]
    got = reference.run(emulate(result.model), {"x": X})["y"]
    assert measure([want], [got]).relative_l2 < limit
    dims = onnx_file.signature_of(onnx_file.read(result.model).proto).inputs[0].dims
    assert dims == (-1, 48)
    assert plan(result.model) > 0


@needs_modelopt
def test_a_kept_node_is_not_the_beginning_of_others(write: Write, apply: Apply) -> None:
    """ModelOpt takes names for patterns that have to fit the beginning of a name."""
    graph = """g (float[b,48] x) => (float[b,16] y) <float[32,48] w, float[16,32] v> {
        [layer] h = Gemm<transB = 1>(x, w)  [layer_1] y = Gemm<transB = 1>(h, v) }"""
    result = apply(Int4(keep=("layer",)), write(graph, WEIGHTS, opset=21, ir_version=10))
    assert result.report.kept == {"layer": "asked for"}
    assert result.report.dequantize == 1


@needs_modelopt
def test_int4_blocks_divide_the_channels_or_the_layer_is_left(write: Write, apply: Apply) -> None:
    graph = """g (float[b,40] x) => (float[b,16] y) <float[40,32] w, float[32,16] v> {
        h = MatMul(x, w)  y = MatMul(h, v) }"""
    weights = {"w": np.ones((40, 32), np.float32), "v": np.ones((32, 16), np.float32)}
    model = write(graph, weights, opset=21, ir_version=10)
    result = apply(Int4(), model)
    assert result.report.kept == {"MatMul_1": "asked for"}
    assert result.report.dequantize == 1


def test_int4_says_when_no_block_fits(write: Write, apply: Apply) -> None:
    graph = "g (float[b,10] x) => (float[b,16] y) <float[10,16] w> { y = MatMul(x, w) }"
    model = write(graph, {"w": np.ones((10, 16), np.float32)}, opset=21, ir_version=10)
    with pytest.raises(
        InputError, match="blocks of 16 divide no .*MatMul_1: 10.*use precision int8"
    ):
        apply(Int4(), model)


def test_int4_says_how_a_computed_weight_is_stored(write: Write, apply: Apply) -> None:
    with pytest.raises(InputError, match="no Gemm or MatMul has a stored weight .simplify: true"):
        apply(Int4(), write(COMPUTED, {"w": WEIGHTS["w"]}, opset=21, ir_version=10))


@needs_modelopt
def test_a_computed_weight_that_is_stored_becomes_int4(write: Write, apply: Apply) -> None:
    model = write(COMPUTED, {"w": WEIGHTS["w"]}, opset=21, ir_version=10)
    assert apply(Int4(), apply(Simplify(), model).model).report.dequantize == 1


@needs_modelopt
def test_the_first_int4_compiles_its_extension_wherever_it_is_run(
    write: Write, apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ModelOpt runs setuptools in the current folder, which takes a project there for its own.

    A copy of ModelOpt compiles: the one that is installed is in use by other tests.
    """
    spec = importlib.util.find_spec("modelopt")
    assert spec is not None and spec.submodule_search_locations
    copy = tmp_path / "packages" / "modelopt"
    compiled = shutil.ignore_patterns("*.so", ".rendered.*")
    shutil.copytree(spec.submodule_search_locations[0], copy, ignore=compiled)
    monkeypatch.syspath_prepend(copy.parent)
    for name in ("one", "two"):
        (tmp_path / "project" / name).mkdir(parents=True)
    about = tmp_path / "project" / "pyproject.toml"
    about.write_text('[project]\nname = "mine"\nversion = "1"\n')
    monkeypatch.chdir(tmp_path / "project")
    graph = "g (float[b,32] x) => (float[b,16] y) <float[32,16] w> { y = MatMul(x, w) }"
    weights = {"w": rng.standard_normal((32, 16)).astype(np.float32)}
    assert apply(Int4(), write(graph, weights, opset=21, ir_version=10)).report.dequantize == 1
    assert list(copy.rglob("*.so"))
    assert len(list((tmp_path / "project").iterdir())) == 3


@needs_modelopt
def test_nothing_quantized_is_a_failure(write: Write, apply: Apply, tmp_path: Path) -> None:
    graph = "g (float[b,8] x) => (float[b,8] y) <float[8,8] w> { y = MatMul(x, w) }"
    np.savez(tmp_path / "s.npz", x=X[:, :8])
    model = write(graph, {"w": np.ones((8, 8), np.float32)}, opset=19, ir_version=10)
    with pytest.raises(InputError, match="nothing was quantized to FP8: .*use precision fp16"):
        apply(Fp8(Samples(str(tmp_path / "s.npz"))), model)


@needs_modelopt
def test_int8_works_after_modelopt_was_used(write: Write, samples: Samples, tmp_path: Path) -> None:
    """ModelOpt patches ONNX Runtime's quantizer in its process; MatMul and Add then fail in it."""
    graph = """g (float[b,48] x) => (float[b,48] y) <float[48,48] w, float[48] bias> {
        h = MatMul(x, w)  i = Add(h, bias)  j = LayerNormalization<axis = -1>(i, bias)
        k = MatMul(j, w)  y = Add(k, x) }"""
    w = rng.standard_normal((48, 48)).astype(np.float32)
    model = write(graph, {"w": w, "bias": w[0]})
    for precision in ("fp8", "int8"):
        recipe = for_precision(precision, "tensorrt_rtx", "1.7", Options(samples=samples))
        work = tmp_path / precision
        work.mkdir()
        assert run(recipe.passes, model, work).reports[-1].dequantize > 0
