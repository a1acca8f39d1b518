"""The accuracy gate: how far a model's outputs are from the original's, and whether that is near.

report = gate(references, outputs, LIMITS["fp16"], "fp16")
report.raise_if_failed()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from tritonsmith_generator.accuracy.metrics import Answers, Array, Metrics, measure
from tritonsmith_generator.accuracy.report import AT_LEAST, Failure, GateReport
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.limits import LIMITS, Limits, limits_for

__all__ = ["LIMITS", "Limits", "gate", "judge", "limits_for"]


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
    """Return the verdict on what was measured; ``reference`` says each output's data type."""
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
        good = value >= limit if field.name in AT_LEAST else value <= limit
        if not good:  # written so that NaN is not good
            failures.append(Failure(name, field.name, value, limit))
    return failures
