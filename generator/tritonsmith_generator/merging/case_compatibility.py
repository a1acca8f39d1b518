"""Do the recorded cases of two copies of a model agree?

Their inputs come from the same samples and their answers from ONNX Runtime, on two machines: the
last digits may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tritonsmith_generator.accuracy.gate import Limits, gate, limits_for
from tritonsmith_generator.merging.copies import Part
from tritonsmith_generator.onnx_model.case_file import Case, load_cases

__all__ = ["cases_differ"]

# Without samples the inputs are random, of a fixed seed: the same but for another libm's rounding.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


def cases_differ(first: Part, other: Part) -> str | None:
    """How the cases differ, and what to do; None if they agree, or if one part has none."""
    if first.cases is None or other.cases is None:
        return None
    a, b = load_cases(first.cases), load_cases(other.cases)
    where = f"the recorded cases of {first.repository} and {other.repository}"
    remedy = "build both from the same samples"
    if len(a) != len(b):
        return f"{where} are {len(a)} and {len(b)}: {remedy}"
    for number, (have, want) in enumerate(zip(a, b, strict=True)):
        if not _same_inputs(have.inputs, want.inputs):
            return f"{where} have other inputs (case {number}): {remedy}"
        problem = _beyond_limits(first, have, want)
        if problem:
            return f"{where} have other answers (case {number}): {problem}"
    return None


def _same_inputs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(_same_array(a[name], b[name]) for name in a)


def _same_array(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind not in "fV":
        return np.array_equal(a, b)
    near = np.isclose(
        a.astype(np.float64), b.astype(np.float64), rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True
    )
    return bool(near.all())


def _beyond_limits(part: Part, have: Case, want: Case) -> str:
    precision = part.locked.precision if part.locked is not None else "fp32"
    limits = limits_for(precision, part.locked.limit if part.locked is not None else Limits())
    texts = [name for name, array in have.outputs.items() if array.dtype.kind in "OSU"]
    for name in texts:
        if name not in want.outputs or not np.array_equal(have.outputs[name], want.outputs[name]):
            return f"output '{name}' holds other strings"
    numbers = {name: array for name, array in have.outputs.items() if name not in texts}
    if not numbers:
        return ""
    return "; ".join(map(str, gate([numbers], [want.outputs], limits, precision).failures))
