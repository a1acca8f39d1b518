"""What the accuracy gate found, in words, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tritonsmith_generator.accuracy.metrics import Metrics
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.limits import LIMITS, Limits

__all__ = ["AT_LEAST", "Failure", "GateReport"]

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

# These measure likeness, not distance.
AT_LEAST = frozenset({"cosine", "top1"})


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
        beyond = "below" if self.metric in AT_LEAST else "above"
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
        """Yield what was measured, and what was allowed: a sentence for each output."""
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
        """Raise InputError that names output, value, limit and the precision to try next.

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
            f"{'lower' if metric in AT_LEAST else 'raise'} accuracy.limit.{metric}"
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
    end = "at least" if metric in AT_LEAST else "at most"
    return "" if limit is None else f" ({end} {limit:g})"


def _either(ways: Iterable[str]) -> str:
    *others, last = ways
    return ", ".join([*others, f"or {last}"]) if others else last
