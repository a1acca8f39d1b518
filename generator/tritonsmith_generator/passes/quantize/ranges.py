"""The ranges of activations, measured on samples: how large a value INT8 has to hold.

A histogram of absolute values is kept for each tensor, so memory does not grow with the samples.
(ONNX Runtime's own calibrators hold every activation of every sample at once for all methods but
min-max, and want all batches to be of one size.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.passes.activations import tensors_of
from tritonsmith_generator.passes.base import Array, Arrays
from tritonsmith_generator.spec.quantization import Quantization

__all__ = ["Histogram", "largest_values"]

_BINS = 4096
_LEVELS = 127  # of a sign, in INT8


def largest_values(
    model: Path, tensors: Sequence[str], batches: Iterable[Arrays], how: Quantization, workdir: Path
) -> dict[str, float]:
    """For each FP32 tensor of the model, the largest absolute value that INT8 shall hold.

    Values beyond it are clipped. Raises InputError for values that are NaN or infinite.
    """
    histograms = {name: Histogram() for name in tensors}
    with tensors_of(model, tensors, workdir) as ask:
        for batch in batches:
            for name, values in ask(batch).items():
                if not np.isfinite(values).all():
                    raise InputError(f"tensor '{name}' is NaN or infinite for one of the samples")
                histograms[name].add(values)
    return {name: CHOICES[how.method](found, how) for name, found in histograms.items()}


class Histogram:
    """Counts of absolute values in equal bins from 0 to ``top``, which doubles when it must."""

    def __init__(self) -> None:
        self.counts: Array = np.zeros(_BINS)
        self.top = 0.0
        self.largest = 0.0

    def add(self, values: Array) -> None:
        absolute = np.abs(values.reshape(-1).astype(np.float32))
        largest = float(absolute.max(initial=0.0))
        self.largest = max(self.largest, largest)
        if not self.top:
            self.top = largest
            # Zeros that came before lie in the first bin whatever its width is.
        while self.top < largest:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([pairs, np.zeros(_BINS // 2)])
            self.top *= 2
        top = self.top or 1.0
        self.counts += np.histogram(absolute, _BINS, (0.0, top))[0]

    def edge(self, bins: int) -> float:
        """Return the upper end of so many bins."""
        return min(self.top * bins / _BINS, self.largest)


def _min_max(histogram: Histogram, how: Quantization) -> float:
    return histogram.largest


def _percentile(histogram: Histogram, how: Quantization) -> float:
    """Return what so many percent of all values do not exceed."""
    below = np.cumsum(histogram.counts)
    return histogram.edge(int(np.searchsorted(below, below[-1] * how.percentile / 100)) + 1)


def _mean_squared_error(histogram: Histogram, how: Quantization) -> float:
    """Where rounding and clipping together cost least, in squares."""
    centers = (np.arange(_BINS) + 0.5) * (histogram.top / _BINS)
    return _least(histogram, lambda bins: _squares(histogram, centers, bins))


def _squares(histogram: Histogram, centers: Array, bins: int) -> float:
    step = (histogram.edge(bins) or 1.0) / _LEVELS
    rounded = np.minimum(np.rint(centers / step), _LEVELS) * step
    return float((histogram.counts * (centers - rounded) ** 2).sum())


def _entropy(histogram: Histogram, how: Quantization) -> float:
    """Where least information is lost (Kullback-Leibler), zeros left out, as TensorRT did it."""
    counts = histogram.counts.copy()
    counts[0] = 0
    return _least(histogram, lambda bins: _divergence(counts, bins))


def _divergence(counts: Array, bins: int) -> float:
    kept = counts[:bins]
    clipped = kept.copy()
    clipped[-1] += counts[bins:].sum()
    if not kept.any():
        return float("inf")
    starts = np.arange(_LEVELS + 1) * bins // (_LEVELS + 1)
    filled = kept > 0
    share = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(filled, starts), 1)
    quantized = np.repeat(share, np.diff([*starts, bins])) * filled
    p, q = clipped / clipped.sum(), quantized / quantized.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))).sum())


def _least(histogram: Histogram, cost: Callable[[int], float]) -> float:
    """Return the end of the range with the least cost; of several the largest."""
    candidates = range(_BINS, _LEVELS, -16)
    return histogram.edge(min(candidates, key=cost))


CHOICES: Mapping[str, Callable[[Histogram, Quantization], float]] = {
    "minmax": _min_max,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mean_squared_error,
}
