"""Constants in half precision: what is out of range, what is a mask, what would become zero."""

from __future__ import annotations

from enum import Enum

import ml_dtypes
import numpy as np

from tritonsmith_generator.passes.base import Array
from tritonsmith_generator.passes.half.selection import HalfType

__all__ = ["BF16", "FP16", "Fit", "fit", "to_half"]

FP16 = HalfType("FP16", 10, "tensor(float16)", 65504.0)
# TensorRT's ONNX parser makes FP32 constants for a GRU of any other type than FP16.
BF16 = HalfType("BF16", 16, "tensor(bfloat16)", (2 - 2**-7) * 2.0**127, frozenset({"GRU"}))

DTYPES = {FP16: np.dtype(np.float16), BF16: np.dtype(ml_dtypes.bfloat16)}

# Nobody computes with such values: they stand for minus infinity in masks.
_SENTINEL = 1e30


class Fit(Enum):
    """How an FP32 constant fits into half precision."""

    FITS = "fits"
    CLIPPED = "mask values beyond the largest number are clipped to it"
    RAISED = "a number too small for the type becomes its smallest one, not 0"
    TOO_LARGE = "real values beyond the largest number"


def fit(array: Array, half: HalfType) -> Fit:
    """How the array fits. NaN and the array's shape play no role."""
    if not array.size:
        return Fit.FITS
    ends = np.array([array.min(), array.max()], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        low = ends.astype(DTYPES[half]).astype(np.float32)
    if np.isfinite(low).all():
        return Fit.RAISED if array.size == 1 and ends.any() and not low.any() else Fit.FITS
    sizes = np.abs(array)
    beyond = sizes > half.largest  # false for NaN
    if (sizes[beyond] < _SENTINEL).any():
        return Fit.TOO_LARGE
    return Fit.CLIPPED if beyond.any() else Fit.FITS


def to_half(array: Array, half: HalfType) -> Array:
    """Return the array in half precision: finite, and a lone non-zero number stays non-zero."""
    dtype = DTYPES[half]
    low: Array = np.clip(array, -half.largest, half.largest).astype(dtype)
    if low.size == 1 and array.any() and not low.any():
        smallest = np.full(low.shape, 1, np.uint16).view(dtype)  # the bit pattern of a subnormal
        low = np.where(np.signbit(array), -smallest, smallest)
    return low
