"""How far answers are from the reference: relative L2, cosine, agreement of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonsmith_generator.errors import InputError

__all__ = ["Metrics", "measure"]

Array = np.ndarray[Any, Any]
Answers = Mapping[str, Array]


@dataclass(frozen=True)
class Metrics:
    """How far one output is from its reference, over all samples.

    Attributes:
        relative_l2: norm of the difference / norm of the reference.
        max_abs: largest difference of two elements.
        cosine: cosine of the angle between both, flattened; 1.0 where both are zero.
        top1: share of rows (last axis) whose largest element is at the same place; 1.0 where the
            last axis has a single element. For integers and booleans: share of equal elements.
        non_finite: elements that are NaN or infinite on one side only, or differ in sign there.
    """

    relative_l2: float
    max_abs: float
    cosine: float
    top1: float
    non_finite: int


def measure(references: Sequence[Array], outputs: Sequence[Array]) -> Metrics:
    """Return the metrics of one output over its samples. Raises InputError when shapes differ."""
    for reference, output in zip(references, outputs, strict=True):
        if reference.shape != output.shape:
            raise InputError(
                f"an output has shape {list(output.shape)}, its reference {list(reference.shape)}"
            )
    expected = np.concatenate([_flat(r) for r in references])
    given = np.concatenate([_flat(o) for o in outputs])
    finite = np.isfinite(expected) & np.isfinite(given)
    same = (expected == given) | (np.isnan(expected) & np.isnan(given))
    broken = int((~finite & ~same).sum())
    expected, given = expected[finite], given[finite]
    difference = expected - given
    norm, distance = float(np.linalg.norm(expected)), float(np.linalg.norm(difference))
    return Metrics(
        relative_l2=distance / norm if norm else (0.0 if distance == 0 else float("inf")),
        max_abs=float(np.abs(difference).max(initial=0.0)),
        cosine=_cosine(expected, given),
        top1=_agreement(references, outputs),
        non_finite=broken,
    )


def _flat(array: Array) -> Array:
    if array.dtype.kind in "OSU":
        raise InputError("an output of strings cannot be compared by numbers")
    flat: Array = np.asarray(array).astype(np.float64).reshape(-1)
    return flat


def _cosine(expected: Array, given: Array) -> float:
    product = float(np.linalg.norm(expected) * np.linalg.norm(given))
    if product:
        return float(np.dot(expected, given)) / product
    return 1.0 if not (expected.any() or given.any()) else 0.0


def _agreement(references: Sequence[Array], outputs: Sequence[Array]) -> float:
    pairs = [_choices(r, o) for r, o in zip(references, outputs, strict=True)]
    equal = np.concatenate([(r == o).reshape(-1) for r, o in pairs])
    return float(equal.mean()) if equal.size else 1.0


def _choices(reference: Array, output: Array) -> tuple[Array, Array]:
    """Give what has to agree: the place of the largest element of a row, or integers themselves."""
    if reference.dtype.kind in "iub":
        return reference, output
    if not reference.ndim or not reference.size:
        return np.zeros(1), np.zeros(1)
    return reference.argmax(-1), output.argmax(-1)
