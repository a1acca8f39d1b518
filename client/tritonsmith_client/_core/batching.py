"""Batches that are larger than a model takes: cut into parts, and the results joined again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import ResponseError

__all__ = ["batch_size", "join", "parts"]


def batch_size(arrays: Mapping[str, Array]) -> int:
    """Return the length of the first axis of the first array; 0 where there is none."""
    first = next(iter(arrays.values()), None)
    return first.shape[0] if first is not None and first.ndim else 0


def parts(arrays: Mapping[str, Array], limit: int) -> list[dict[str, Array]]:
    """View of at most so many rows each, of nearly equal length."""
    size = batch_size(arrays)
    count = -(-size // limit)
    bounds = [size * n // count for n in range(count + 1)]
    return [
        {name: array[start:end] for name, array in arrays.items()}
        for start, end in zip(bounds, bounds[1:], strict=False)
    ]


def join(results: Sequence[Result], sizes: Sequence[int]) -> Result:
    """One result of those of all parts.

    Raises:
        ResponseError: the parts differ in their outputs, or an output has no batch axis.
    """
    first = results[0]
    outputs: dict[str, Array] = {}
    for name in first:
        arrays = [result.get(name) for result in results]
        rows = [None if a is None or not a.ndim else a.shape[0] for a in arrays]
        if rows != list(sizes):
            raise ResponseError(
                f"the parts of a batch for model '{first.model_name}' cannot be joined: output "
                f"'{name}' has {rows} rows for {list(sizes)}; send smaller batches, or refuse "
                "large ones with using(split=False)"
            )
        try:
            outputs[name] = np.concatenate([a for a in arrays if a is not None])
        except ValueError as exc:
            raise ResponseError(
                f"the parts of a batch for model '{first.model_name}' cannot be joined: "
                f"output '{name}': {exc}"
            ) from exc
    return first.holding(outputs)
