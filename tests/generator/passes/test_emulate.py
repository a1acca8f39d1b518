"""Emulation: what a GPU would answer, where ONNX Runtime's CPU kernels would not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tritonsmith_generator.onnx_model import reference
from tritonsmith_generator.passes.half.half import Fp16

Write = Callable[..., Path]
Apply = Callable[..., Any]
Emulate = Callable[[Path], Path]

X = np.random.default_rng(5).standard_normal((4, 8)).astype(np.float32)


def test_fp16_overflow_is_seen(write: Write, apply: Apply, emulate: Emulate) -> None:
    """ONNX Runtime itself keeps the product in FP32 from one node to the next."""
    graph = """g (float[b,8] x) => (float[b,8] y) <float big = {30000.0}> {
        a = Mul(x, big)  c = Mul(a, big)  y = Div(c, big) }"""
    result = apply(Fp16(), write(graph)).model
    assert not np.isfinite(reference.run(emulate(result), {"x": X})["y"]).all()


def test_a_model_in_fp32_is_left_alone(write: Write, emulate: Emulate) -> None:
    model = write("g (float[b,8] x) => (float[b,8] y) { y = Relu(x) }")
    assert emulate(model) == model


def rounded(values: Any) -> Any:
    return np.asarray(values, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def test_every_node_rounds(write: Write, emulate: Emulate) -> None:
    graph = """g (float[b,8] x) => (float[b,8] y) {
        x16 = Cast<to = 16>(x)  a = Exp(x16)  c = Add(a, a)  d = Sin(c)  y = Cast<to = 1>(d) }"""
    got = reference.run(emulate(write(graph)), {"x": X})["y"]
    a = rounded(np.exp(rounded(X)))
    want = rounded(np.sin(rounded(a + a)))
    assert np.mean(got == want) > 0.9  # exp and sin may differ in their last bit
    np.testing.assert_allclose(got, want, rtol=0.01)


def test_half_inputs_outputs_and_bodies_keep_their_types(write: Write, emulate: Emulate) -> None:
    graph = """g (float16[b,8] x, bool c) => (float16[b,8] y, float16[b,8] z) <
        float16[8,8] w, int64 n = {3}, bool go = {1}> {
        h = MatMul(x, w)
        y = If(c) <
            then_branch = t () => (float16[b,8] a) { a = Relu(h) },
            else_branch = e () => (float16[b,8] a) { a = Identity(h) }>
        z = Loop(n, go, h) <
            body = l (int64 i, bool on, float16[b,8] state) => (bool on_out, float16[b,8] next) {
                on_out = Identity(on)  k = MatMul(state, w)  next = Tanh(k) }> }"""
    w = np.random.default_rng(6).standard_normal((8, 8)).astype(np.float16)
    model = write(graph, {"w": w})
    for c in (True, False):
        inputs = {"x": X.astype(np.float16), "c": np.array(c)}
        want, got = reference.run(model, inputs), reference.run(emulate(model), inputs)
        for name in want:
            assert got[name].dtype == np.float16
            np.testing.assert_allclose(got[name], want[name], rtol=2e-2, atol=2e-2)
