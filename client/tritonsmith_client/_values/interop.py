"""torch, DLPack and pandas in; torch and pandas out. Nothing is imported that is not there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from tritonsmith_client._values.buffers import Array
from tritonsmith_client.errors import InputError

__all__ = ["as_numpy", "to_frame", "to_torch"]


def as_numpy(value: Any, name: str) -> Array | None:
    """Return a foreign array as numpy, without a copy where it lies in the host's memory.

    Takes torch tensors (bfloat16 too, and those on a GPU), pandas series, and whatever else
    speaks DLPack. None for a value that is no array, such as a list.

    Raises:
        InputError: the array cannot be brought to the host.
    """
    torch = sys.modules.get("torch")  # a tensor is no tensor unless torch was imported
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_torch(value, torch)
    if hasattr(value, "to_numpy"):  # pandas, polars
        array: Array = np.asarray(value.to_numpy())
        return array
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as exc:
            raise InputError(
                f"input '{name}' is a {type(value).__name__} that numpy cannot read: {exc}; "
                "bring it to the host's memory first",
                name,
            ) from exc
    return None


def _from_torch(tensor: Any, torch: Any) -> Array:
    host = tensor.detach().cpu().contiguous()
    if host.dtype is torch.bfloat16:  # numpy() knows nothing of it
        bits: Array = host.view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    array: Array = host.numpy()
    return array


def to_torch(outputs: Mapping[str, Array]) -> dict[str, Any]:
    """Return outputs as torch tensors, which share their memory. BYTES outputs are left out.

    Raises:
        InputError: torch is not installed.
    """
    try:
        import torch
    except ImportError as exc:
        raise InputError("torch is not installed: pip install torch") from exc
    tensors = {}
    for name, array in outputs.items():
        if array.dtype == ml_dtypes.bfloat16:
            tensors[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        elif array.dtype.kind != "O":
            tensors[name] = torch.from_numpy(array if array.flags.aligned else array.copy())
    return tensors


def to_frame(outputs: Mapping[str, Array]) -> Any:
    """Return outputs as a pandas DataFrame: one row an item of the batch, one column an output.

    What has more axes than the batch becomes a column for each element (``name_0`` ...).

    Raises:
        InputError: pandas is not installed, or the outputs differ in their number of rows.
    """
    try:
        import pandas
    except ImportError as exc:
        raise InputError("pandas is not installed: pip install pandas") from exc
    columns: dict[str, Array] = {}
    for name, array in outputs.items():
        rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        if rows.shape[1] == 1:
            columns[name] = rows[:, 0]
        else:
            columns |= {f"{name}_{n}": rows[:, n] for n in range(rows.shape[1])}
    if len({len(column) for column in columns.values()}) > 1:
        raise InputError("the outputs differ in their first axis, so they make no table")
    return pandas.DataFrame(columns)
