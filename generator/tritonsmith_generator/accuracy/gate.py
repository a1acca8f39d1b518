"""The accuracy gate: how far a model's outputs are from the original's, and whether that is near.

report = gate(references, outputs, LIMITS["fp16"], "fp16")
report.raise_if_failed()
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.limits import LIMITS, Limits, limits_for

__all__ = [
    "LIMITS",
    "Failure",
    "GateReport",
    "Limits",
    "Metrics",
    "gate",
    "judge",
    "limits_for",
    "measure",
]

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
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "int8": ("quantization.smooth: 0.7 (for transformers) or another quantization.method",),
    "int4": ("a smaller quantization.block_size",),
}

_AT_LEAST = frozenset({"cosine", "top1"})


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


@dataclass(frozen=True)
class GateReport:
    """The gate's verdict: metrics and limits by output, and what failed."""

    precision: str
    outputs: Mapping[str, Metrics]
    failures: tuple[Failure, ...]
    limits: Mapping[str, Limits]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def error(self) -> float:
        """The largest relative L2 error; infinite for NaN and infinity on one side."""
        found = self.outputs.values()
        return max(math.inf if m.non_finite else m.relative_l2 for m in found)

    @property
    def try_next(self) -> str | None:
        """The precision to try after a failure; None after fp32."""
        return self._next(LIMITS)

    def lines(self) -> Iterator[str]:
        """What was measured, and what was allowed: a sentence for each output."""
        for name, metrics in self.outputs.items():
            limits = self.limits[name]
            measured = (
                f"{label} {getattr(metrics, metric):{form}}{_allowed(metric, limits)}"
                for metric, (label, form) in _SHOWN.items()
            )
            yield f"accuracy of '{name}': {', '.join(measured)}"

    def raise_if_failed(
        self,
        *,
        what: str = "",
        sparse: bool = False,
        others: int | None = None,
        searched: str = "",
        available: Collection[str] = LIMITS,
    ) -> None:
        """Raises InputError that names output, value, limit and the precision to try next.

        ``what`` says of what the outputs are, before all else, e.g. ``"the plan: "``;
        ``sparse`` says that weights were pruned as well, which may lose more than any precision;
        ``others`` how many conversions with some nodes left alone fail as well, None if that was
        not tried; ``searched`` another such search and what came of it; ``available`` names the
        precisions of the target.
        """
        if self.passed:
            return
        precision = f"{self.precision} with 2:4 sparsity" if sparse else self.precision
        reasons = [*map(str, self.failures)]
        if others is not None:
            tried = f"nor is any of {others} others that keep some nodes as they are, and "
            rest = f"to keep all nodes would leave nothing of {self.precision}"
            reasons.append(f"{tried if others else ''}{rest}")
        if searched:
            reasons.append(searched)
        advice = self._advice(sparse, bool(searched) or others is not None, available)
        raise InputError(
            f"{what}{precision} is not accurate enough: {'; '.join(reasons)}; {_either(advice)}"
        )

    @property
    def _non_finite(self) -> bool:
        return any(failure.metric == "non_finite" for failure in self.failures)

    def _next(self, available: Collection[str]) -> str | None:
        found: str | None = self.precision
        while found is not None:
            finite, other = _NEXT.get(found, (None, None))
            found = other if self._non_finite else finite
            if found in available:
                break
        return found

    def _advice(self, sparse: bool, searched: bool, available: Collection[str]) -> Iterator[str]:
        if sparse:
            yield "leave sparse out (for weights that were not trained for it)"
        if better := self._next(available):
            yield f"try precision: {better}"
            yield from _OPTIONS.get(self.precision, ())
            if not searched:
                yield "keep layers in FP32"
        elif not sparse:
            yield "please report this model: the precision is not at fault"
        if not self._non_finite:  # for which there is no limit
            yield self._other_limits()

    def _other_limits(self) -> str:
        failed = dict.fromkeys(failure.metric for failure in self.failures)
        if [*failed] == ["relative_l2"]:
            return "raise accuracy.limit"
        return " and ".join(
            f"{'lower' if metric in _AT_LEAST else 'raise'} accuracy.limit.{metric}"
            for metric in failed
        )


# By metric: how it is called and written for people.
_SHOWN: Mapping[str, tuple[str, str]] = {
    "relative_l2": ("relative L2", ".1e"),
    "max_abs": ("largest difference", ".1e"),
    "cosine": ("cosine", ".5f"),
    "top1": ("top-1", ".1%"),
}


def _allowed(metric: str, limits: Limits) -> str:
    limit = getattr(limits, metric)
    end = "at least" if metric in _AT_LEAST else "at most"
    return "" if limit is None else f" ({end} {limit:g})"


def _either(ways: Iterable[str]) -> str:
    *others, last = ways
    return ", ".join([*others, f"or {last}"]) if others else last


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
    metrics = {
        name: measure([_output(r, name) for r in references], [_output(o, name) for o in outputs])
        for name in references[0]
    }
    return judge(metrics, references[0], limits, precision)


def judge(
    metrics: Mapping[str, Metrics], reference: Answers, limits: Limits, precision: str
) -> GateReport:
    """The verdict on what was measured; ``reference`` says each output's data type."""
    allowed = {name: _limits_of(reference[name], limits) for name in metrics}
    failures = tuple(
        failure
        for name, found in metrics.items()
        for failure in _failures(name, found, allowed[name])
    )
    return GateReport(precision, metrics, failures, allowed)


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
