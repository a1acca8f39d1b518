"""The accuracy gate on conversions, and the search for nodes to keep in FP32."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonsmith_generator.accuracy.gate import LIMITS, Limits
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.passes import Options, Samples
from tritonsmith_generator.precision.bisection import largest_shares, smallest
from tritonsmith_generator.precision.search import Search, convert

Write = Callable[..., Path]

rng = np.random.default_rng(4)
SAMPLES = [{"x": rng.standard_normal((4, 8)).astype(np.float32)} for _ in range(3)]

# The square of 300 x is beyond FP16; its node has to stay in FP32, with what divides it again.
OVERFLOWS = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w> {
    a = MatMul(x, w)  b0 = Relu(a)  c = Tanh(b0)  d = Sigmoid(c)
    big = Constant<value = float[1] {30000.0}>()
    e = Mul(d, big)  f = Mul(e, e)  g0 = Sqrt(f)  h = Div(g0, big)
    i = Tanh(h)  j = MatMul(i, w)  y = Relu(j) }"""
W = {"w": rng.standard_normal((8, 8)).astype(np.float32)}


def search(model: Path, **changes: Any) -> Search:
    values: dict[str, Any] = {
        "model": model,
        "samples": SAMPLES,
        "precision": "fp16",
        "library": "tensorrt_rtx",
        "version": "1.7",
        "limits": LIMITS["fp16"],
        **changes,
    }
    return Search(**values)


def test_the_gate_names_infinity_and_the_precision_with_more_range(
    write: Write, tmp_path: Path
) -> None:
    result = convert(search(write(OVERFLOWS, W)), tmp_path, fallback=False)
    assert not result.gate.passed
    with pytest.raises(InputError, match="fp16 .*output 'y': .* try precision: "):
        result.gate.raise_if_failed()


def test_the_search_finds_the_nodes_that_overflow(
    write: Write, plan: Callable[[Path], int], tmp_path: Path
) -> None:
    trials: list[tuple[int, int]] = []
    result = convert(search(write(OVERFLOWS, W)), tmp_path, on_trial=lambda *t: trials.append(t))
    assert result.gate.passed
    assert set(result.kept) == {"Mul_2", "Sqrt_1"}
    assert result.trials == len(trials) <= 20
    assert result.passes.reports[-1].lowered > 5
    assert plan(result.passes.model) > 0
    assert [p.name for p in tmp_path.glob("trial*")] == [result.folder.name]


def test_an_accurate_model_takes_one_trial(write: Write, tmp_path: Path) -> None:
    model = write("g (float[b,8] x) => (float[b,8] y) <float[8,8] w> { y = MatMul(x, w) }", W)
    result = convert(search(model), tmp_path)
    assert (result.kept, result.trials, result.gate.passed) == ((), 1, True)


def test_where_nothing_helps_the_gate_stays_closed(write: Write, tmp_path: Path) -> None:
    model = write("g (float[b,8] x) => (float[b,8] y) <float[8,8] w> { y = MatMul(x, w) }", W)
    result = convert(search(model, limits=Limits(relative_l2=1e-9)), tmp_path)
    assert (result.kept, result.gate.passed) == ((), False)


def test_trials_that_cannot_be_converted_do_not_end_the_search(
    write: Write, tmp_path: Path
) -> None:
    """To keep the only node that FP16 changes is an error, several times over."""
    text = """g (float[b,8] x, int64[8] i) => (float[b,8] y, int64[8] n) <float[8,8] w> {
        y = MatMul(x, w)  j = Add(i, i)  k = Add(j, i)  l = Add(k, i)  n = Add(l, i) }"""
    integers = [{**sample, "i": np.arange(8)} for sample in SAMPLES]
    strict = search(write(text, W), samples=integers, limits=Limits(relative_l2=1e-9))
    result = convert(strict, tmp_path)
    assert (result.kept, result.gate.passed) == ((), False)


def test_the_user_s_own_nodes_stay_kept(write: Write, tmp_path: Path) -> None:
    result = convert(search(write(OVERFLOWS, W), options=Options(keep=("MatMul_1",))), tmp_path)
    assert result.gate.passed
    assert result.passes.reports[-1].kept["MatMul_1"] == "asked for"


@pytest.mark.parametrize("culprits", [{3}, {0, 99}, {10, 11, 12}, {5, 50, 95}])
def test_bisection_finds_what_is_needed_within_its_bound(culprits: set[int]) -> None:
    names = [f"n{i}" for i in range(100)]
    needed = {f"n{i}" for i in culprits}
    calls = itertools.count()

    def passes(part: tuple[str, ...]) -> bool:
        next(calls)
        return needed <= set(part)

    assert set(smallest(names, passes, 1000) or ()) == needed
    few = itertools.count()

    def counted(part: tuple[str, ...]) -> bool:
        next(few)
        return needed <= set(part)

    found = smallest(names, counted, 12)
    assert next(few) <= 12
    assert found is None or needed <= set(found)


def test_the_largest_shares_of_an_error_are_found() -> None:
    """Everything adds to the error, a few much more than the others."""
    names = [f"n{i}" for i in range(100)]
    squares = dict.fromkeys(names, 1e-6) | {"n7": 1e-3, "n8": 2e-3, "n60": 5e-3}
    trials = itertools.count()

    def error(part: tuple[str, ...]) -> float:
        if part:
            next(trials)
        return math.sqrt(sum(square for name, square in squares.items() if name not in part))

    def passes(part: tuple[str, ...]) -> bool:
        return error(part) <= 0.012

    found = largest_shares(names, error, passes, 31)
    assert next(trials) <= 31
    assert found is not None
    assert {"n7", "n8", "n60"} <= set(found)
    assert len(found) <= 6
    assert largest_shares(names, error, lambda part: False, 31) is None


def test_int8_keeps_the_layers_that_cost_most(
    write: Write, plan: Callable[[Path], int], tmp_path: Path
) -> None:
    """One layer's input has an outlier that leaves the others hardly a step of INT8."""
    graph = """g (float[b,8] x) => (float[b,8] y) <float[8,8] w, float[8,8] v, float[8] outlier> {
        a = MatMul(x, w)  c = Tanh(a)  d = MatMul(c, w)  e = Tanh(d)
        f = Mul(e, outlier)  h = MatMul(f, v)  i = Tanh(h)  y = MatMul(i, w) }"""
    outlier = np.ones(8, np.float32)
    outlier[0] = 5000
    v = W["w"].copy()
    v[0] = 0  # the outlier plays no role, but for the scale that it forces on the others
    model = write(graph, {**W, "v": v, "outlier": outlier})
    np.savez(tmp_path / "s.npz", x=np.concatenate([sample["x"] for sample in SAMPLES]))
    result = convert(
        search(
            model,
            precision="int8",
            limits=LIMITS["int8"],
            options=Options(samples=Samples(str(tmp_path / "s.npz"))),
        ),
        tmp_path,
    )
    assert result.gate.passed
    assert result.kept == ("MatMul_3",)
    assert result.passes.reports[-1].dequantize == 4  # three inputs, and the weight they share
    assert plan(result.passes.model) > 0
