"""FP16 and BF16: each trap that a converter can fall into, as a graph that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file, reference
from tritonsmith_generator.passes.half.half import Bf16, Fp16

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]
Apply = Callable[..., Any]
Plan = Callable[[Path], int]
Emulate = Callable[[Path], Path]

rng = np.random.default_rng(0)
X = rng.standard_normal((4, 8)).astype(np.float32)
W = rng.standard_normal((8, 8)).astype(np.float32)
X3 = rng.standard_normal((3, 5, 8)).astype(np.float32)


def off_by(original: Path, converted: Path, inputs: Mapping[str, Array]) -> float:
    """The largest relative L2 error over the outputs; inf for NaN on one side."""
    want, got = reference.run(original, inputs), reference.run(converted, inputs)
    assert {n: a.dtype for n, a in want.items()} == {n: a.dtype for n, a in got.items()}
    found = [measure([want[name]], [got[name]]) for name in want]
    return max(float("inf") if m.non_finite else m.relative_l2 for m in found)


def operators(model: Path) -> dict[str, onnx.NodeProto]:
    return {n.op_type: n for n in onnx_file.read(model).proto.graph.node}


GRAPHS = {
    "mlp": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  y = Relu(h) }""",
    "output read inside": """g (float[b,8] x) => (float[b,8] h, float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  y = Relu(h) }""",
    "input is output": """g (float[b,8] x) => (float[b,8] y, float[b,8] x) <float[8,8] w> {
        y = MatMul(x, w) }""",
    "weight is output": """g (float[b,8] x) => (float[b,8] y, float[8,8] w) <float[8,8] w> {
        y = MatMul(x, w) }""",
    "constant nodes": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        k = Constant<value = float[1] {3.0}>()  two = Constant<value_float = 2.0>()
        h = MatMul(x, w)  i = Mul(h, k)  y = Add(i, two) }""",
    "casts": """g (float[b,8] x) => (float[b,8] y, int64[b,8] z) <float[8,8] w> {
        h = MatMul(x, w)  p = Greater(h, x)  q = Cast<to = 1>(p)  r = Cast<to = 10>(h)
        s = Cast<to = 1>(r)  i = Mul(h, q)  t = Mul(s, i)
        y = Cast<to = 1>(t)  z = Cast<to = 7>(y) }""",
    "resize": """g (float[b,8] x) => (float[b,1,4,8] y) <float[0] roi,
        float[4] scales = {1.0, 1.0, 2.0, 2.0}, int64[4] shape = {-1, 1, 2, 4}> {
        i = Reshape(x, shape)  y = Resize<mode = "linear">(i, roi, scales) }""",
    "shape of": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  s = Shape(h)  z = ConstantOfShape(s)
        o = ConstantOfShape<value = float[1] {0.5}>(s)  i = Add(h, z)  y = Mul(i, o) }""",
    "if": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  zero = Constant<value = float {0.0}>()
        m = ReduceMax<keepdims = 0>(h)  c = Greater(m, zero)
        y = If(c) <
            then_branch = t () => (float[b,8] a) { k = Constant<value = float[1] {3.0}>()
                i = Mul(h, k)  a = MatMul(i, w) },
            else_branch = e () => (float[b,8] a) { i = Neg(h)  a = Add(i, x) }> }""",
    "if passes through": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  zero = Constant<value = float {0.0}>()
        m = ReduceMax<keepdims = 0>(h)  c = Greater(m, zero)
        y = If(c) <
            then_branch = t () => (float[b,8] a) { a = Identity(h) },
            else_branch = e () => (float[b,8] a) { a = Relu(h) }> }""",
    "loop": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w, int64 n = {3}, bool go = {1}> {
        h = MatMul(x, w)
        y = Loop(n, go, h) <
            body = l (int64 i, bool on, float[b,8] state) => (bool on_out, float[b,8] next) {
                on_out = Identity(on)  k = MatMul(state, w)  next = Tanh(k) }> }""",
    "scan": """g (float[b,8] x) => (float[1,8] last, float[b,1,8] all) <
        float[8,8] w, float[1,8] s> {
        last, all = Scan<num_scan_inputs = 1,
            body = l (float[1,8] state, float[8] row) => (float[1,8] next, float[1,8] out) {
                k = MatMul(state, w)  m = Add(k, row)  next = Tanh(m)  out = Identity(next) }
            >(s, x) }""",
    "fp32 only": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  i = Celu(h)  y = MatMul(i, w) }""",
    "layer norm": """g (float[b,8] x) => (float[b,8] y) <float[8,8] w, float[8] s, float[8] t> {
        h = MatMul(x, w)  y = LayerNormalization<axis = -1, epsilon = 0.00001>(h, s, t) }""",
}
WEIGHTS = {
    "roi": np.zeros(0, np.float32),
    "w": W,
    "s": np.ones(8, np.float32),
    "t": np.zeros(8, np.float32),
}


def weights_for(graph: str) -> dict[str, Array]:
    weights = {name: WEIGHTS[name] for name in WEIGHTS if f"] {name}" in graph.split("{")[0]}
    if "Scan" in graph:
        weights["s"] = np.zeros((1, 8), np.float32)
    return weights


@pytest.mark.parametrize("name", GRAPHS)
def test_fp16_is_near_fp32_and_tensorrt_takes_it(
    name: str, write: Write, apply: Apply, plan: Plan, emulate: Callable[[Path], Path]
) -> None:
    model = write(GRAPHS[name], weights_for(GRAPHS[name]))
    result = apply(Fp16(), model)
    assert off_by(model, result.model, {"x": X}) < 3e-3
    assert off_by(model, emulate(result.model), {"x": X}) < 3e-3
    assert result.report.lowered > 0
    if name != "input is output":  # TensorRT gives such an input another name
        assert plan(result.model) > 0


@pytest.mark.parametrize("name", GRAPHS)
def test_bf16_is_near_fp32_and_tensorrt_takes_it(
    name: str, write: Write, apply: Apply, plan: Plan, emulate: Callable[[Path], Path]
) -> None:
    model = write(GRAPHS[name], weights_for(GRAPHS[name]), opset=22, ir_version=10)
    result = apply(Bf16(), model)
    assert result.report.lowered > 0
    assert off_by(model, emulate(result.model), {"x": X}) < 2e-2
    if name != "input is output":
        assert plan(result.model) > 0


MASKED = """g (float[b,8] x, int64[b,8] mask) => (float[b,8] y) <
    float[8,8] w, float one = {1.0}, float lowest = {-3.4028234663852886e38}> {
    m = Cast<to = 1>(mask)  inverse = Sub(one, m)  bias = Mul(inverse, lowest)
    h = MatMul(x, w)  scores = Add(h, bias)  y = Softmax<axis = -1>(scores) }"""


@pytest.mark.parametrize("step", [Fp16(), Bf16()], ids=["fp16", "bf16"])
def test_mask_constants_do_not_become_infinite(
    step: Fp16 | Bf16, write: Write, apply: Apply, emulate: Callable[[Path], Path]
) -> None:
    model = write(MASKED, {"w": W}, opset=22, ir_version=10)
    result = apply(step, model)
    inputs = {"x": X, "mask": np.tile(np.array([1, 1, 1, 0, 0, 1, 1, 1]), (4, 1))}
    assert off_by(model, emulate(result.model), inputs) < 2e-2  # 0 * -inf would be NaN
    assert any("'lowest'" in note and "clipped" in note for note in result.report.notes)


def test_real_values_beyond_half_keep_their_node_in_fp32(write: Write, apply: Apply) -> None:
    model = write(GRAPHS["mlp"], {"w": W * 1e5})
    with pytest.raises(InputError, match="nothing was lowered to FP16: .*beyond 65504"):
        apply(
            Fp16(), write("g (float[b,8] x) => (float[b,8] y) { y = MatMul(x, w) }", {"w": W * 1e5})
        )
    assert apply(Fp16(), model).report.kept == {"MatMul_1": "'w' holds values beyond 65504"}


def test_a_constant_node_beyond_half_keeps_its_reader_in_fp32(write: Write, apply: Apply) -> None:
    model = write(
        """g (float[b,8] x) => (float[b,8] y) { k = Constant<value = float[1] {100000.0}>()
           h = Div(x, k)  i = Relu(h)  y = Mul(i, k) }"""
    )
    assert off_by(model, apply(Fp16(), model).model, {"x": X}) < 1e-2


def test_a_tiny_epsilon_does_not_become_zero(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y) <float eps = {0.000000000001}> {
        s = ReduceMean<axes = [1]>(x)  d = Sub(x, s)  v = Mul(d, d)
        m = ReduceMean<axes = [1]>(v)  e = Add(m, eps)  r = Sqrt(e)  y = Div(d, r) }"""
    model = write(graph, opset=17)
    result = apply(Fp16(), model)
    same = np.ones((2, 8), np.float32)  # no variance: 0 / sqrt(0 + eps)
    assert np.isfinite(reference.run(result.model, {"x": same})["y"]).all()
    assert any("'eps'" in note and "raised" in note for note in result.report.notes)


@pytest.mark.parametrize("step", [Fp16(), Bf16()], ids=["fp16", "bf16"])
def test_positions_are_computed_in_fp32(
    step: Fp16 | Bf16, write: Write, apply: Apply, emulate: Callable[[Path], Path]
) -> None:
    graph = """g (float[b,8] x, int64[b,1] position) => (float[b,8] y) <float[1,8] frequency> {
        p = Cast<to = 1>(position)  angle = MatMul(p, frequency)  s = Sin(angle)  y = Mul(x, s) }"""
    frequency = np.linspace(0.5, 1, 8, dtype=np.float32)[None]
    model = write(graph, {"frequency": frequency}, opset=22, ir_version=10)
    result = apply(step, model)
    inputs = {"x": X, "position": np.array([[3], [301], [2049], [70001]])}
    assert off_by(model, emulate(result.model), inputs) < 1e-2
    assert result.report.kept["Sin_1"] == "positions are computed in FP32"
    assert "Mul_1" not in result.report.kept


def test_weights_that_are_graph_inputs_do_not_stay_inputs(write: Write, apply: Apply) -> None:
    """IR version 3: the renamed weight would leave an input that nothing feeds."""
    model = write(
        "g (float[b,8] x, float[8,8] w) => (float[b,8] y) { y = MatMul(x, w) }",
        {"w": W},
        opset=9,
        ir_version=3,
    )
    result = apply(Fp16(), model)
    assert [v.name for v in onnx_file.read(result.model).proto.graph.input] == ["x"]
    assert off_by(model, result.model, {"x": X}) < 3e-3


def test_light_models_of_opset_9(apply: Apply, plan: Plan) -> None:
    """Real graphs of opset 9 and IR version 3, as the onnx package carries them."""
    data = Path(onnx.__file__).parent / "backend/test/data/light"
    model = data / "light_squeezenet.onnx"
    result = apply(Fp16(), model)
    assert result.report.kept == {}
    x = rng.random((1, 3, 224, 224), np.float32)
    name = onnx_file.signature_of(onnx_file.read(model).proto).inputs[0].name
    assert off_by(model, result.model, {name: x}) < 1e-2
    assert plan(result.model) > 0


def test_keep_takes_names_patterns_operators_and_tensors(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  i = Relu(h)  j = Tanh(i)  y = MatMul(j, w) }"""
    model = write(graph, {"w": W})
    for pattern, expected in [
        ("MatMul_1", {"MatMul_1"}),
        ("MatMul_*", {"MatMul_1", "MatMul_2"}),
        ("Tanh", {"Tanh_1"}),
        ("i", {"Relu_1"}),
    ]:
        result = apply(Fp16(keep=(pattern,)), model)
        assert set(result.report.kept) == expected
        assert off_by(model, result.model, {"x": X}) < 3e-3
    with pytest.raises(InputError, match="keep: 'MatMull_1' fits no node .*near it: MatMul_1"):
        apply(Fp16(keep=("MatMull_1",)), model)


def test_a_shared_weight_serves_lowered_and_kept_nodes(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
        h = MatMul(x, w)  y = MatMul(h, w) }"""
    model = write(graph, {"w": W})
    result = apply(Fp16(keep=("MatMul_2",)), model)
    assert off_by(model, result.model, {"x": X}) < 3e-3
    types = {t.data_type for t in onnx_file.read(result.model).proto.graph.initializer}
    assert types == {TensorProto.FLOAT, TensorProto.FLOAT16}


def test_an_operator_of_another_domain_and_all_behind_it_stay_in_fp32(
    write: Write, apply: Apply
) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float[b,8] x) => (float[b,8] y) {
        h = Tanh(x)  i = com.microsoft.QuickGelu<alpha = 1.0>(h)  y = Tanh(i) }"""
    )
    model = write(proto)
    result = apply(Fp16(), model)
    assert set(result.report.kept) == {"QuickGelu_1", "Tanh_2"}
    assert off_by(model, result.model, {"x": X}) < 3e-3


def test_local_functions_are_inlined_and_lowered(write: Write, apply: Apply) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "local" : 1]>
        g (float[b,8] x) => (float[b,8] y) <float[8,8] w> { h = local.twice(x)  y = MatMul(h, w) }
        <domain: "local", opset_import: ["" : 18]>
        twice (a) => (b) { two = Constant<value_float = 2.0>()  b = Mul(a, two) }"""
    )
    model = write(proto, {"w": W})
    result = apply(Fp16(), model)
    assert result.report.kept == {}
    assert off_by(model, result.model, {"x": X}) < 3e-3


def test_names_that_look_like_ours_are_not_overwritten(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w, float[8,8] w_fp16> {
        x_fp16 = Relu(x)  h = MatMul(x_fp16, w)  i = MatMul(x, w_fp16)  y = Add(h, i) }"""
    model = write(graph, {"w": W, "w_fp16": W.T.copy()})
    assert off_by(model, apply(Fp16(), model).model, {"x": X}) < 3e-3


def test_both_branches_may_use_the_same_names(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x, bool c) => (float[b,8] y) {
        y = If(c) <
            then_branch = t () => (float[b,8] a) { i = Neg(x)  a = Exp(i) },
            else_branch = e () => (float[b,8] a) { i = Cast<to = 7>(x)  a = Cast<to = 1>(i) }> }"""
    model = write(graph)
    result = apply(Fp16(), model)
    for c in (True, False):
        assert off_by(model, result.model, {"x": X, "c": np.array(c)}) < 3e-3


def test_operators_that_onnx_has_in_fp32_only_are_kept(write: Write, apply: Apply) -> None:
    graph = """g (float[1,n,4] boxes, float[1,1,n] scores) => (int64[m,3] y) <
        int64 most = {9}, float iou = {0.5}> {
        s = Sigmoid(scores)  y = NonMaxSuppression(boxes, s, most, iou) }"""
    model = write(graph)
    result = apply(Fp16(), model)
    assert result.report.kept == {"NonMaxSuppression_1": "ONNX has no FP16 form of it in opset 18"}
    boxes = rng.random((1, 9, 4)).astype(np.float32)
    scores = np.linspace(-1, 1, 9, dtype=np.float32)[None, None]
    assert off_by(model, result.model, {"boxes": boxes, "scores": scores}) == 0


def test_a_cast_in_a_body_reads_what_was_never_rounded(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x, bool c) => (float[b,8] y, int64[b,8] z) {
        y, z = If(c) <
            then_branch = t () => (float[b,8] a, int64[b,8] d) {
                a = Relu(x)  d = Cast<to = 7>(x) },
            else_branch = e () => (float[b,8] a, int64[b,8] d) {
                a = Neg(x)  d = Cast<to = 7>(x) }> }"""
    result = apply(Fp16(), write(graph))
    x = np.full((1, 8), 2049, np.float32)  # 2048 in FP16
    assert reference.run(result.model, {"x": x, "c": np.array(True)})["z"].max() == 2049


def test_a_kept_node_in_a_body_reads_what_was_never_rounded(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x, bool c) => (float[b,8] y, float[b,8] z) {
        y, z = If(c) <
            then_branch = t () => (float[b,8] a, float[b,8] d) { a = Relu(x)  d = Tanh(x) },
            else_branch = e () => (float[b,8] a, float[b,8] d) { a = Neg(x)  d = Abs(x) }> }"""
    model = write(graph)
    result = apply(Fp16(keep=("Tanh",)), model)
    inputs = {"x": X, "c": np.array(True)}
    want, got = reference.run(model, inputs), reference.run(result.model, inputs)
    np.testing.assert_array_equal(got["z"], want["z"])
    assert not np.array_equal(got["y"], want["y"])


RECURRENT = """g (float[b,5,8] x) => (float[5,1,b,4] y) <
    float[1,16,8] lw, float[1,16,4] lr, float[1,12,4] gw, float[1,12,4] gr> {
    e = Exp(x)  l = Tanh(e)  t = Transpose<perm = [1, 0, 2]>(l)
    h = LSTM<hidden_size = 4>(t, lw, lr)
    axis = Constant<value = int64[1] {1}>()  s = Squeeze(h, axis)  r = Relu(s)
    g = GRU<hidden_size = 4>(r, gw, gr)  y = Sigmoid(g) }"""


def recurrent_weights() -> dict[str, Array]:
    shapes = {"lw": (1, 16, 8), "lr": (1, 16, 4), "gw": (1, 12, 4), "gr": (1, 12, 4)}
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def test_a_gru_stays_in_fp32_in_bf16_with_all_that_is_compiled_with_it(
    write: Write, apply: Apply, emulate: Emulate, plan: Plan
) -> None:
    """TensorRT's parser takes no GRU in BF16, and fails to compile one with a cast beside it."""
    model = write(RECURRENT, recurrent_weights(), opset=22, ir_version=10)
    result = apply(Bf16(), model)
    assert result.report.kept["GRU_1"] == "TensorRT takes no GRU in BF16"
    assert set(result.report.kept) == {"GRU_1", "LSTM_1", "Relu_1", "Transpose_1", "Tanh_1"}
    assert result.report.lowered == 3
    assert any("'GRU_1' stayed in FP32: TensorRT" in note for note in result.report.notes)
    assert off_by(model, emulate(result.model), {"x": X3}) < 3e-2
    assert plan(result.model) > 0


def test_a_kept_recurrent_layer_keeps_the_others(write: Write, apply: Apply, plan: Plan) -> None:
    model = write(RECURRENT, recurrent_weights(), opset=22, ir_version=10)
    result = apply(Fp16(keep=("LSTM",)), model)
    assert "compiled together with 'LSTM_1'" in result.report.kept["GRU_1"]
    assert plan(result.model) > 0


def test_recurrent_layers_are_lowered_where_that_works(
    write: Write, apply: Apply, emulate: Emulate, plan: Plan
) -> None:
    weights = recurrent_weights()
    both = write(RECURRENT, weights, opset=22, ir_version=10)
    lstm = RECURRENT.replace("GRU<hidden_size = 4>(r, gw, gr)", "Unsqueeze(r, axis)")
    unused = {n: w for n, w in weights.items() if n[0] == "l"}
    one = write(
        lstm.replace(", float[1,12,4] gw, float[1,12,4] gr", ""), unused, opset=22, ir_version=10
    )
    for step, model in ((Fp16(), both), (Bf16(), one)):
        result = apply(step, model)
        assert result.report.kept == {}
        assert off_by(model, emulate(result.model), {"x": X3}) < 3e-2
        assert plan(result.model) > 0


def test_what_onnx_runtime_crashes_on_in_fp16_stays_in_fp32(
    write: Write, apply: Apply, emulate: Emulate
) -> None:
    """A crash would end this test's process, and a server."""
    graph = """g (float[b,5,8] x) => (float[5,b,8] y, float[b,8,5] z) <float[8,8] w> {
        h = Tanh(x)  t = Transpose<perm = [1, 0, 2]>(h)  i = Identity(t)  y = MatMul(i, w)
        k = MatMul(h, w)  z = Transpose<perm = [0, 2, 1]>(k) }"""
    model = write(graph, {"w": W})
    result = apply(Fp16(for_onnx_runtime=True), model)
    assert list(result.report.kept) == ["Transpose_1"]
    assert off_by(model, result.model, {"x": X3}) < 3e-3  # as it is, not emulated
    assert apply(Fp16(), model).report.kept == {}


def test_a_model_without_fp32_is_refused(write: Write, apply: Apply) -> None:
    model = write("g (int64[b,8] x) => (int64[b,8] y) { y = Add(x, x) }")
    with pytest.raises(InputError, match="nothing was lowered to FP16: the model has no FP32"):
        apply(Fp16(), model)
