"""INT8: what the quantizer must be kept from doing, and samples that don't fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tritonsmith_generator import Spec, build
from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file, reference
from tritonsmith_generator.onnx_model.case_file import case_path, load_cases
from tritonsmith_generator.onnx_model.reference import Reference
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.passes.quantize.int8 import OPERATORS, Int8
from tritonsmith_generator.precision.search import answers
from tritonsmith_generator.spec.quantization import Quantization

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]
Apply = Callable[..., Any]
Plan = Callable[[Path], int]

rng = np.random.default_rng(2)
X = rng.standard_normal((32, 8)).astype(np.float32)
IMAGES = rng.standard_normal((16, 3, 8, 8)).astype(np.float32)

MLP = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w, float[8] bias> {
    h = Gemm<transB = 1>(x, w, bias)  i = Relu(h)  y = MatMul(i, w) }"""
MLP_WEIGHTS = {
    "w": rng.standard_normal((8, 8)).astype(np.float32),
    "bias": rng.standard_normal(8).astype(np.float32),
}
CNN = """g (float[b,3,8,8] x) => (float[b,4] y) <float[8,3,3,3] w, float[8] bias, float[8,4] v> {
    h = Conv<pads = [1, 1, 1, 1]>(x, w, bias)  i = Relu(h)  j = Add(i, h)
    k = GlobalAveragePool(j)  l = Flatten(k)  y = MatMul(l, v) }"""
CNN_WEIGHTS = {
    "w": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
    "bias": rng.standard_normal(8).astype(np.float32),
    "v": rng.standard_normal((8, 4)).astype(np.float32),
}
ENCODER = """g (float[b,8] x) => (float[b,8] y) <
    float[8,8] q, float[8,8] k, float[8,8] v, float[8] s, float[8] t> {
    n = LayerNormalization<axis = -1>(x, s, t)  a = MatMul(n, q)  c = MatMul(n, k)
    d = Transpose<perm = [1, 0]>(c)  e = MatMul(a, d)  p = Softmax<axis = -1>(e)
    f = MatMul(n, v)  o = MatMul(p, f)  y = Add(o, x) }"""
ENCODER_WEIGHTS = {
    **{name: (rng.standard_normal((8, 8)) / 3).astype(np.float32) for name in "qkv"},
    "s": np.ones(8, np.float32),
    "t": np.zeros(8, np.float32),
}
MODELS = {
    "mlp": (MLP, MLP_WEIGHTS, X),
    "cnn": (CNN, CNN_WEIGHTS, IMAGES),
    "encoder": (ENCODER, ENCODER_WEIGHTS, X),
}


def save(path: Path, **arrays: Array) -> Samples:
    np.savez(path, allow_pickle=False, **arrays)
    return Samples(str(path))


@pytest.mark.parametrize("size", [8, 64])
def test_weights_in_a_file_of_their_own(
    size: int, write: Write, apply: Apply, tmp_path: Path
) -> None:
    """Large ones and small ones; the result is that of a model in one file."""
    graph = f"g (float[b,{size}] x) => (float[b,{size}] y) <float[{size},{size}] w> {{"
    w = rng.standard_normal((size, size)).astype(np.float32)
    x = rng.standard_normal((16, size)).astype(np.float32)
    whole = write(graph + " y = MatMul(x, w) }", {"w": w}, opset=19)
    proto = onnx.load(whole)
    proto.graph.node[0].name = "m"
    onnx.save(proto, whole)
    onnx.save(
        proto,
        tmp_path / "apart.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    step = Int8(save(tmp_path / "s.npz", x=x))
    one, other = (apply(step, path) for path in (whole, tmp_path / "apart.onnx"))
    assert (tmp_path / "weights.bin").stat().st_size == w.nbytes
    assert [p.name for p in other.model.parent.iterdir()] == ["model.onnx"]
    assert other.report.dequantize == one.report.dequantize > 0
    want, got = (reference.run(result.model, {"x": x})["y"] for result in (one, other))
    assert np.array_equal(want, got)


@pytest.mark.parametrize(
    ("library", "reduce_range", "largest"),
    [
        ("onnxruntime", None, 64),
        ("onnxruntime", False, 127),
        ("tensorrt_rtx", None, 127),
        ("tensorrt_rtx", True, 64),
    ],
)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_weights_saturate_no_cpu_that_may_run_them(
    name: str, library: Any, reduce_range: bool | None, largest: int, write: Write, tmp_path: Path
) -> None:
    """Two products of 255 and 64 are less than 2**15: what CPUs without VNNI add in 16 bits."""
    graph, weights, x = MODELS[name]
    samples = save(tmp_path / "s.npz", x=x)
    how = Options(samples=samples, quantization=Quantization(reduce_range=reduce_range))
    model = write(graph, weights)
    result = run(for_precision("int8", library, "1.7", how).passes, model, tmp_path)
    stored = map(numpy_helper.to_array, onnx_file.read(result.model).proto.graph.initializer)
    found = [abs(w.astype(int)).max() for w in stored if w.dtype == np.int8 and w.ndim > 1]
    assert found and set(found) == {largest}
    if largest == 64:  # on this CPU
        served, exact = (Reference(result.model, way)({"x": x})["y"] for way in (False, True))
        assert measure([exact], [served]).relative_l2 < 0.01


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_what_tensorrt_is_compared_with_depends_on_no_cpu(
    name: str, write: Write, tmp_path: Path
) -> None:
    """Weights of 8 bits, which CPUs without VNNI saturate with: converted, and given like that."""
    graph, weights, x = MODELS[name]
    model, samples = write(graph, weights), save(tmp_path / "s.npz", x=x)
    recipe = for_precision("int8", "tensorrt", "8.6.0", Options(samples=samples))
    result = run(recipe.passes, model, tmp_path)
    want = reference.run(model, {"x": x})["y"]
    got = answers(result.model, [{"x": x}], tmp_path)[0]["y"]
    assert measure([want], [got]).relative_l2 < 0.05
    given: dict[str, Any] = {"onnx": str(result.model), "target": "tensorrt_rtx"}
    given["accuracy"] = {"samples": str(tmp_path / "s.npz")}
    (built,) = build(Spec.model_validate({"models": {"m": given}}), tmp_path, tmp_path / "repo")
    assert built.error is None
    cases = load_cases(case_path(tmp_path / "repo" / "m", 1))
    recorded = np.concatenate([case.outputs["y"] for case in cases])
    assert measure([want[: len(recorded)]], [recorded]).relative_l2 < 0.05


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("library", ["tensorrt_rtx", "tensorrt 8.6.0", "onnxruntime"])
def test_int8_is_near_fp32_and_what_tensorrt_takes(
    name: str, library: str, write: Write, plan: Plan, tmp_path: Path
) -> None:
    graph, weights, x = MODELS[name]
    model = write(graph, weights)
    samples = save(tmp_path / "s.npz", x=x)
    executor, _, version = library.partition(" ")
    recipe = for_precision("int8", executor, version or "1.7", Options(samples=samples))  # type: ignore[arg-type]  # three of three names
    result = run(recipe.passes, model, tmp_path)
    want = reference.run(model, {"x": x})
    got = Reference(result.model, exact=executor != "onnxruntime")({"x": x})
    assert measure([want["y"]], [got["y"]]).relative_l2 < 0.05
    proto = onnx_file.read(result.model).proto
    # Each of these three is refused by TensorRT.
    stored = {t.name: t for t in proto.graph.initializer}
    quantizers = [
        n
        for n in proto.graph.node
        if n.op_type.endswith("quantizeLinear") or n.op_type == "QuantizeLinear"
    ]
    assert quantizers
    for node in quantizers:
        zero = stored.get(node.input[2]) if len(node.input) > 2 else None
        assert zero is None or not numpy_helper.to_array(zero).any()
        data = stored.get(node.input[0])
        # TensorRT 8.6 has an internal error on a transformer with INT8 weights.
        kind = TensorProto.FLOAT if library == "tensorrt 8.6.0" else TensorProto.INT8
        assert data is None or data.data_type == kind, "an INT32 bias"
        scale = stored[node.input[1]]
        half = library == "tensorrt_rtx"
        assert scale.data_type == (TensorProto.FLOAT16 if half else TensorProto.FLOAT)
    for node in proto.graph.node:
        if any(name.endswith("DequantizeLinear_Output") for name in node.input):
            assert node.op_type in OPERATORS, "a quantized LayerNormalization"
    assert {o.domain for o in proto.opset_import} == {""}
    assert result.reports[-1].dequantize == len([n for n in quantizers if n.op_type[0] == "D"])
    if half:
        assert plan(result.model) > 0


def test_weights_have_a_scale_per_channel(write: Write, apply: Apply, tmp_path: Path) -> None:
    weights = {
        **CNN_WEIGHTS,
        "w": CNN_WEIGHTS["w"] * np.logspace(-3, 0, 8, dtype=np.float32)[:, None, None, None],
    }
    result = apply(Int8(save(tmp_path / "s.npz", x=IMAGES)), write(CNN, weights))
    scales = [t for t in onnx_file.read(result.model).proto.graph.initializer if "scale" in t.name]
    assert sorted(tuple(t.dims) for t in scales)[-2:] == [(4,), (8,)]


def test_a_channel_of_tiny_weights_still_fits_half(
    write: Write, plan: Plan, tmp_path: Path
) -> None:
    """Its scale would be 0 in FP16, or FP32 beside FP16 scales, which TensorRT refuses."""
    weights = {**MLP_WEIGHTS, "w": MLP_WEIGHTS["w"].copy()}
    weights["w"][:, 3] = 1e-7
    samples = save(tmp_path / "s.npz", x=X)
    recipe = for_precision("int8", "tensorrt_rtx", "1.7", Options(samples=samples))
    model = write(MLP.replace("Gemm<transB = 1>", "Gemm"), weights)
    result = run(recipe.passes, model, tmp_path)
    assert any("raised" in note for report in result.reports for note in report.notes)
    want, got = reference.run(model, {"x": X}), reference.run(result.model, {"x": X})
    assert measure([want["y"]], [got["y"]]).relative_l2 < 0.05
    assert plan(result.model) > 0


def test_a_given_quantized_model_with_a_tiny_scale_keeps_that_layer_in_fp32(
    write: Write, apply: Apply, plan: Plan, tmp_path: Path
) -> None:
    from tritonsmith_generator.passes.half.half import Fp16

    graph = """g (float[b,8] x) => (float[b,8] y) <int8[8,8] w, float ws = {0.00000001},
        float xs = {0.02}, int8 zero = {0}> {
        q = QuantizeLinear(x, xs, zero)  d = DequantizeLinear(q, xs, zero)
        e = DequantizeLinear(w, ws, zero)  h = MatMul(d, e)  i = Relu(h)  y = Mul(i, i) }"""
    model = write(graph, {"w": rng.integers(-127, 127, (8, 8)).astype(np.int8)}, opset=21)
    result = apply(Fp16(), model)
    kept = set(result.report.kept)
    assert {"MatMul_1", "DequantizeLinear_1"} <= kept
    assert "Relu_1" not in kept
    assert plan(result.model) > 0


def test_nothing_quantized_is_a_failure_with_the_reason(
    write: Write, apply: Apply, tmp_path: Path
) -> None:
    samples = save(tmp_path / "s.npz", x=X)
    cases = {
        "none of the operators": "g (float[b,8] x) => (float[b,8] y) { y = Relu(x) }",
        "weight is not constant": """g (float[b,8] x) => (float[b,b] y) {
            t = Transpose<perm = [1, 0]>(x)  y = MatMul(x, t) }""",
    }
    for reason, graph in cases.items():
        with pytest.raises(
            InputError, match=f"nothing was quantized.*{reason}.*use precision fp16"
        ):
            apply(Int8(samples), write(graph))
    with pytest.raises(InputError, match="'Gemm_1': asked for; 'MatMul_1': asked for"):
        apply(Int8(samples, keep=("Gemm", "MatMul")), write(MLP, MLP_WEIGHTS))


def test_keep_leaves_a_layer_alone(write: Write, apply: Apply, tmp_path: Path) -> None:
    samples = save(tmp_path / "s.npz", x=X)
    result = apply(Int8(samples, keep=("MatMul_1",)), write(MLP, MLP_WEIGHTS))
    assert result.report.kept == {"MatMul_1": "asked for"}
    assert result.report.dequantize == 2


def test_keep_holds_for_a_node_that_is_fused(write: Write, apply: Apply, tmp_path: Path) -> None:
    """ONNX Runtime folds MatMul and Add into a Gemm of another name before it quantizes."""
    graph = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w, float[8] bias> {
        h = MatMul(x, w)  i = Add(h, bias)  j = Relu(i)  y = MatMul(j, w) }"""
    samples = save(tmp_path / "s.npz", x=X)
    result = apply(Int8(samples, keep=("MatMul_1",)), write(graph, MLP_WEIGHTS))
    assert result.report.kept == {"MatMul_1/MatMulAddFusion": "asked for"}
    assert result.report.dequantize == 2


def test_a_quantized_model_is_not_quantized_again(write: Write, tmp_path: Path) -> None:
    samples = save(tmp_path / "s.npz", x=X)
    recipe = for_precision("int8", "onnxruntime", "1.31", Options(samples=samples))
    work = tmp_path / "one"
    work.mkdir()
    once = run(recipe.passes, write(MLP, MLP_WEIGHTS), work).model
    with pytest.raises(InputError, match=r"pass int8 \(after tidy, opset\) needs: no Q or DQ node"):
        run(recipe.passes, once, tmp_path)


def test_without_samples_int8_says_where_to_give_them(write: Write, apply: Apply) -> None:
    with pytest.raises(InputError, match="accuracy.samples"):
        apply(Int8(None), write(MLP, MLP_WEIGHTS))


# --- samples -------------------------------------------------------------------------------


def read(samples: Samples, model: Path, most: int | None = None) -> list[dict[str, Array]]:
    signature = onnx_file.signature_of(onnx_file.read(model).proto)
    return [dict(batch) for batch in samples.read(signature, most)]


TWO = "g (float[b,2] a, int64[b] n) => (float[b,2] y) { c = Cast<to = 1>(n) y = Identity(a) }"
ONE = "g (float[2,2] a) => (float[2,2] y) { y = Identity(a) }"


def test_samples_from_npz_and_folders_and_callables(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, n = rng.random((10, 2), np.float32), np.arange(10)
    model = write(TWO)
    expected: list[dict[str, Array]] = [{"a": a[:8], "n": n[:8]}, {"a": a[8:], "n": n[8:]}]

    def check(samples: Samples, want: list[dict[str, Array]]) -> None:
        got = read(samples, model)
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[k], other[k]) for k in one)
            assert one["n"].dtype == np.int64

    check(save(tmp_path / "s.npz", a=a.astype(np.float64), n=n.astype(np.int32)), expected)
    assert len(read(Samples(str(tmp_path / "s.npz")), model, most=8)) == 1
    assert len(read(Samples(str(tmp_path / "s.npz")), model, most=9)) == 2
    whole = tmp_path / "whole"
    whole.mkdir()
    np.save(whole / "a.npy", a)
    np.save(whole / "n.npy", n)
    check(Samples(str(whole)), expected)
    single: list[dict[str, Array]] = [{"a": a[i : i + 1], "n": n[i : i + 1]} for i in range(3)]
    for index, batch in enumerate(single):
        for name, array in batch.items():
            (tmp_path / "each" / name).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "each" / name / f"{index}.npy", array[0])
    check(Samples(str(tmp_path / "each")), single)
    (tmp_path / "given.py").write_text(
        "import numpy as np\ndef three():\n    for i in range(3):\n"
        "        yield {'a': np.full((1, 2), i, np.float32), 'n': np.array([i])}\n"
    )
    monkeypatch.chdir(tmp_path)
    for source in ("given:three", f"{tmp_path}/given.py:three"):
        assert [batch["n"].tolist() for batch in read(Samples(source), model)] == [[0], [1], [2]]


def test_samples_for_a_fixed_batch(write: Write, tmp_path: Path) -> None:
    model = write(ONE)
    assert len(read(save(tmp_path / "s.npz", a=np.zeros((6, 2), np.float32)), model)) == 3
    assert len(read(save(tmp_path / "s.npz", a=np.zeros((5, 2, 2), np.float32)), model)) == 5
    with pytest.raises(InputError, match="has 5 samples; .* takes 2 at a time"):
        read(save(tmp_path / "s.npz", a=np.zeros((5, 2), np.float32)), model)


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "no samples for the input n": ("", {"a": np.zeros((4, 2), np.float32)}),
    "different numbers of samples: 2 of 'a', 1 of 'n'": (
        "",
        {"a": np.zeros((9, 2), np.float32), "n": np.zeros(8, np.int64)},
    ),
    "'a' is int64, the input is a: FP32": (
        "",
        {"a": np.zeros((4, 2), np.int64), "n": np.zeros(4, np.int64)},
    ),
    r"'a' has shape \[4, 3\]": (
        "",
        {"a": np.zeros((4, 3), np.float32), "n": np.zeros(4, np.int64)},
    ),
    "'a' holds NaN": ("", {"a": np.full((4, 2), np.nan, np.float32), "n": np.zeros(4, np.int64)}),
    "there is no sample in it": (
        "",
        {"a": np.zeros((0, 2), np.float32), "n": np.zeros(0, np.int64)},
    ),
    "not a readable .npz": ("broken.npz", {}),
    "neither a .npz file": ("bad.py", {}),
    "samples 'nothing': no such file or folder; correct accuracy.samples": ("nothing", {}),
    "there are 0 for 'a', 0 for 'n'": ("empty", {}),
    "no module 'nowhere'": ("nowhere:f", {}),
    "returned int": ("bad.py:number", {}),
    "yields int": ("bad.py:numbers", {}),
    "raised ZeroDivisionError": ("bad.py:fails", {}),
    r"'a' has shape \[2\], .*; axis 0 of each array is the batch": ("bad.py:single", {}),
}


@pytest.mark.parametrize("message", WRONG)
def test_samples_that_do_not_fit_say_why(
    message: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, arrays = WRONG[message]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK not a zip")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.py").write_text(
        "def number():\n    return 3\ndef numbers():\n    return [3]\n"
        "def fails():\n    yield {'a': 1 / 0}\n"
        "def single():\n    yield {'a': [1.0, 2.0], 'n': 1}\n"
    )
    samples = save(tmp_path / "s.npz", **arrays) if arrays else Samples(source)
    with pytest.raises(InputError, match=message):
        read(samples, write(TWO))
