"""The accuracy gate: how far a model's outputs are from the original's, and whether that is near.

report = gate(references, outputs, LIMITS["fp16"], "fp16")
report.raise_if_failed()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tritonsmith_generator.errors import InputError

__all__ = ["LIMITS", "Failure", "GateReport", "Limits", "Metrics", "gate", "limits_for", "measure"]

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


@dataclass(frozen=True)
class Limits:
    """What the gate allows; None where it doesn't look. NaN on one side is never allowed."""

    relative_l2: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    top1: float | None = None


# Relative L2 errors of correct conversions lie well below these, those of wrong ones above.
LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(relative_l2=1e-4),
    "tf32": Limits(relative_l2=5e-3),
    "fp16": Limits(relative_l2=1e-2),
    "bf16": Limits(relative_l2=3e-2),
    "int8": Limits(relative_l2=0.1),
    "fp8": Limits(relative_l2=0.1),
    "int4": Limits(relative_l2=0.1),
}

# What to try when a precision isn't accurate enough: (finite outputs, NaN or infinity in them).
_NEXT: Mapping[str, tuple[str, str]] = {
    "int4": ("int8", "bf16"),
    "fp8": ("int8", "bf16"),
    "int8": ("fp16", "bf16"),
    "bf16": ("fp16", "fp32"),
    "fp16": ("tf32", "bf16"),
    "tf32": ("fp32", "fp32"),
}


# What may help without another precision.
_OPTIONS: Mapping[str, str] = {
    "int8": "quantization.smooth: 0.7 (for transformers) or another quantization.method, ",
    "int4": "a smaller quantization.block_size, ",
}


@dataclass(frozen=True)
class Failure:
    """One value beyond its limit."""

    output: str
    metric: str
    value: float
    limit: float

    def __str__(self) -> str:
        where = f"output '{self.output}'"
        if self.metric == "non_finite":
            return f"{where}: {self.value:.0f} elements are NaN or infinite on one side only"
        beyond = "below" if self.metric in _AT_LEAST else "above"
        return f"{where}: {self.metric} is {self.value:.3g}, {beyond} the limit {self.limit:g}"


_AT_LEAST = frozenset({"cosine", "top1"})


@dataclass(frozen=True)
class GateReport:
    """The gate's verdict: metrics by output, and what failed."""

    precision: str
    outputs: Mapping[str, Metrics]
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def try_next(self) -> str | None:
        """The precision to try after a failure; None after fp32."""
        finite, other = _NEXT.get(self.precision, (None, None))
        return other if any(f.metric == "non_finite" for f in self.failures) else finite

    def raise_if_failed(self, *, sparse: bool = False, trials: int = 1) -> None:
        """Raises InputError that names output, value, limit and the precision to try next.

        ``sparse`` says that weights were pruned as well, which may lose more than any precision;
        ``trials`` how many conversions were tried, each with other nodes left alone.
        """
        if self.passed:
            return
        what = f"{self.precision} with 2:4 sparsity" if sparse else self.precision
        kept = f" ({trials} conversions that keep some of its nodes were tried)"
        reasons = "; ".join(map(str, self.failures))
        raise InputError(
            f"{what} is not accurate enough: {reasons}{kept if trials > 1 else ''}; "
            f"{self._advice(sparse)}"
        )

    def _advice(self, sparse: bool) -> str:
        if not sparse and not self.try_next:
            return "the conversion is at fault, not the precision: please report this model"
        pruned = "leave sparse out (for weights that were not trained for it), " if sparse else ""
        lowered = (
            f"try precision: {self.try_next}, {_OPTIONS.get(self.precision, '')}keep layers in "
            "FP32, "
            if self.try_next
            else ""
        )
        return f"{pruned}{lowered}or raise accuracy.limit"


def limits_for(precision: str, limit: float | None = None) -> Limits:
    """The default limits of a precision, or a relative L2 limit that the user gave."""
    return LIMITS[precision] if limit is None else Limits(relative_l2=limit)


def gate(
    references: Sequence[Answers], outputs: Sequence[Answers], limits: Limits, precision: str
) -> GateReport:
    """Compare the outputs with the references, sample by sample, output by output.

    Raises InputError when they don't belong together: no samples, other names, other shapes.
    """
    if not references or len(references) != len(outputs):
        raise InputError(
            f"the accuracy gate needs the same samples on both sides: {len(references)} "
            f"reference answers, {len(outputs)} answers"
        )
    names = list(references[0])
    metrics = {
        name: measure([_output(r, name) for r in references], [_output(o, name) for o in outputs])
        for name in names
    }
    failures = tuple(
        failure
        for name, found in metrics.items()
        for failure in _failures(name, found, _limits_of(references[0][name], limits))
    )
    return GateReport(precision, metrics, failures)


def _output(answers: Answers, name: str) -> Array:
    if name not in answers:
        raise InputError(f"output '{name}' is missing; there are: {', '.join(answers)}")
    return answers[name]


def _limits_of(reference: Array, limits: Limits) -> Limits:
    """Integers (classes, flags) have no meaningful distance: enough of them have to be equal."""
    if reference.dtype.kind not in "iub":
        return limits
    return Limits(top1=limits.top1 or 1 - (limits.relative_l2 or 0.0))


def _failures(name: str, metrics: Metrics, limits: Limits) -> list[Failure]:
    if metrics.non_finite:
        return [Failure(name, "non_finite", metrics.non_finite, 0)]
    failures = []
    for field in fields(limits):
        limit, value = getattr(limits, field.name), getattr(metrics, field.name)
        if limit is None:
            continue
        good = value >= limit if field.name in _AT_LEAST else value <= limit
        if not good:  # written so that NaN is not good
            failures.append(Failure(name, field.name, value, limit))
    return failures


def measure(references: Sequence[Array], outputs: Sequence[Array]) -> Metrics:
    """The metrics of one output over its samples. Raises InputError when shapes differ."""
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
    """What has to agree: the place of the largest element of a row, or integers themselves."""
    if reference.dtype.kind in "iub":
        return reference, output
    if not reference.ndim or not reference.size:
        return np.zeros(1), np.zeros(1)
    return reference.argmax(-1), output.argmax(-1)
