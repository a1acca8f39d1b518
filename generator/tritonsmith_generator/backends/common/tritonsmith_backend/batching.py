"""Requests of one batch are joined on axis 0, run once, and their outputs split again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Arrays", "Parts", "Run", "joined", "run_requests"]

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
# Each input as the parts that are to be joined on axis 0: one for each request. So a model that
# copies its inputs anyway joins them on the way.
Parts = Mapping[str, Sequence["np.ndarray[Any, Any]"]]
# Inputs and the names of the wanted outputs, to outputs.
Run = Callable[[Parts, Sequence[str]], Arrays]


def run_requests(
    inputs: Sequence[Arrays], wanted: Sequence[Sequence[str]], run: Run, batched: bool
) -> list[Arrays | Exception]:
    """Return the outputs of each request, or the error that it alone met.

    With ``batched``, requests whose inputs have the same names, types and shapes apart from
    axis 0 are run as one. Should that fail, each is run by itself, so that one request that
    the model can't take does not fail its neighbors.
    """
    results: list[Arrays | Exception] = [{} for _ in inputs]
    groups = _groups(inputs) if batched else [[i] for i in range(len(inputs))]
    for group in groups:
        if len(group) > 1:
            try:
                _run_joined(inputs, wanted, run, group, results)
                continue
            except Exception:
                pass  # met again below, by the requests that cause it
        for index in group:
            try:
                parts = {name: [array] for name, array in inputs[index].items()}
                results[index] = run(parts, wanted[index])
            except Exception as exc:
                results[index] = exc
    return results


def joined(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return the parts as one array; a single part is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _groups(inputs: Sequence[Arrays]) -> list[list[int]]:
    """Return indices of requests that can be joined, in the order of arrival."""
    groups: dict[object, list[int]] = {}
    for index, arrays in enumerate(inputs):
        key = tuple(sorted((n, a.dtype.str, a.shape[1:]) for n, a in arrays.items()))
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _run_joined(
    inputs: Sequence[Arrays],
    wanted: Sequence[Sequence[str]],
    run: Run,
    group: Sequence[int],
    results: list[Arrays | Exception],
) -> None:
    parts = {name: [inputs[i][name] for i in group] for name in inputs[group[0]]}
    names = list(dict.fromkeys(name for i in group for name in wanted[i]))
    rows = [len(next(iter(inputs[i].values()))) for i in group]
    outputs = run(parts, names)
    ends = np.cumsum(rows)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != ends[-1]:
            raise ValueError(f"output '{name}' has shape {array.shape} for {ends[-1]} rows")
    for index, end, count in zip(group, ends, rows, strict=True):
        results[index] = {name: outputs[name][end - count : end] for name in wanted[index]}
