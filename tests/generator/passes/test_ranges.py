"""Ranges of activations: what each method makes of a distribution, and in how much memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.passes.quantize.ranges import CHOICES, Histogram, largest_values
from tritonsmith_generator.spec.quantization import Quantization

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]

rng = np.random.default_rng(8)
NORMAL = rng.standard_normal(100_000).astype(np.float32)
OUTLIER = np.concatenate([NORMAL, np.array([-500], np.float32)])

COPY = "g (float[b,n] x) => (float[b,n] y) { h = Mul(x, x)  y = Identity(h) }"


def chosen(method: str, *parts: Array, percentile: float = 99.99) -> float:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return CHOICES[method](histogram, Quantization("minmax", percentile))


def quantization_error(values: Array, largest: float) -> float:
    step = largest / 127
    return float(np.square(values - np.clip(np.rint(values / step), -127, 127) * step).sum())


def test_min_max_clips_nothing() -> None:
    assert chosen("minmax", NORMAL, OUTLIER) == 500


@pytest.mark.parametrize(("percentile", "want"), [(50, 0.674), (99, 2.576), (99.99, 3.89)])
def test_a_percentile_is_of_absolute_values(percentile: float, want: float) -> None:
    assert chosen("percentile", NORMAL, percentile=percentile) == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_one_outlier_does_not_take_the_steps_of_all_others(method: str) -> None:
    assert 2 < chosen(method, NORMAL) < 5
    assert chosen(method, OUTLIER) < 40
    assert chosen("minmax", OUTLIER) == 500


def test_entropy_does_not_count_zeros() -> None:
    """Behind a Relu most values are zero, and need no steps."""
    rectified = np.concatenate([np.zeros(900_000, np.float32), NORMAL])
    assert chosen("entropy", rectified) == chosen("entropy", NORMAL)


def test_least_squares_are_the_least() -> None:
    """Heavy tails: neither the largest value nor what most of them don't exceed is best."""
    values = rng.laplace(size=200_000).astype(np.float32)
    best = quantization_error(values, chosen("mse", values))
    for other in (*np.linspace(2, 14, 40), chosen("minmax", values)):
        assert best <= 1.001 * quantization_error(values, float(other))


@pytest.mark.parametrize("method", CHOICES)
def test_batches_of_growing_values_give_what_all_at_once_gives(method: str) -> None:
    parts = np.split(NORMAL * np.linspace(0.01, 1, len(NORMAL), dtype=np.float32), [10, 500])
    together = chosen(method, np.concatenate(parts))
    # The bins are up to twice as wide; the divergence has no sharp minimum.
    assert chosen(method, *parts) == pytest.approx(
        together, rel=0.25 if method == "entropy" else 0.06
    )


def test_what_was_counted_before_the_range_grew_stays_where_it_is() -> None:
    small, large = NORMAL[:90_000] * np.float32(0.05), NORMAL[90_000:]
    want = np.percentile(np.abs(np.concatenate([small, large])), 80)
    assert chosen("percentile", small, large, percentile=80) == pytest.approx(want, rel=0.05)


@pytest.mark.parametrize("method", CHOICES)
def test_zeros_alone_have_no_range(method: str) -> None:
    assert chosen(method, np.zeros(9, np.float32)) == 0
    assert 2 < chosen(method, np.zeros(9, np.float32), NORMAL) < 6


def test_memory_does_not_grow_with_the_samples(write: Write, tmp_path: Path) -> None:
    """400 MB of activations, of batches of different sizes."""
    size = 1 << 18

    def batches() -> Iterator[dict[str, Array]]:
        for number in range(200):
            yield {"x": np.full((1 + number % 2, size), number, np.float32)}

    tracemalloc.start()
    try:
        found = largest_values(write(COPY), ["x", "h"], batches(), Quantization(), tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == {"x": 199, "h": 199**2}
    assert peak < 40 * size * 4 / 2
    assert not any(tmp_path.glob("*/measured*")), "what was measured with stayed"


def test_values_that_are_no_numbers_are_refused(write: Write, tmp_path: Path) -> None:
    graph = "g (float[b,2] x) => (float[b,2] y) { h = Log(x)  y = Relu(h) }"
    batches = [{"x": np.array([[1, -1]], np.float32)}]
    with pytest.raises(InputError, match="tensor 'h' is NaN or infinite for one of the samples"):
        largest_values(write(graph), ["h"], batches, Quantization(), tmp_path)
