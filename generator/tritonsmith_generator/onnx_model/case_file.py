"""Cases: recorded inputs with their reference answers, as a file beside the repository."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tritonsmith_client import dtypes
from tritonsmith_client.dtypes import DataType
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.reference import Arrays
from tritonsmith_generator.onnx_model.signature import Signature

__all__ = ["Case", "case_path", "largest_difference", "load_cases", "served_cases", "write_cases"]


@dataclass(frozen=True)
class Case:
    """One input of the model with ONNX Runtime's own answer, as full arrays by tensor name."""

    inputs: Arrays
    outputs: Arrays


def largest_difference(got: Mapping[str, Any], want: Mapping[str, Any]) -> float:
    """Get the largest absolute difference over all outputs; inf where shape, dtype or bytes differ.

    NaN on both sides is no difference, on one side it is inf.
    """
    if set(got) != set(want):
        return math.inf
    return max((_difference(np.asarray(got[n]), np.asarray(want[n])) for n in want), default=0.0)


def case_path(model_folder: Path, version: int) -> Path:
    """Where the cases of a version lie."""
    return model_folder / "cases" / f"{version}.npz"


def served_cases(cases: Sequence[Case], served: Signature) -> tuple[Case, ...]:
    """Return the cases in the data types of the served signature (TensorRT makes FP32 of FP64)."""
    dtype = {t.name: t.dtype.numpy for t in (*served.inputs, *served.outputs)}

    def cast(arrays: Arrays) -> Arrays:
        return {name: array.astype(dtype[name], copy=False) for name, array in arrays.items()}

    return tuple(Case(cast(case.inputs), cast(case.outputs)) for case in cases)


def write_cases(cases: Sequence[Case]) -> bytes:
    """Give the cases as the content of one ``.npz`` file: plain bytes, no pickles, reproducible."""
    about: list[Any] = []
    arrays: dict[str, Any] = {}
    for index, case in enumerate(cases):
        for side, values in (("inputs", case.inputs), ("outputs", case.outputs)):
            for name, array in values.items():
                dtype = dtypes.from_numpy(array.dtype)
                about.append([index, side, name, dtype.wire, list(array.shape)])
                arrays[f"{len(about) - 1:04d}"] = _pack(array, dtype)
    file = io.BytesIO()
    np.savez(file, about=np.array(json.dumps(about)), **arrays)
    return file.getvalue()


def load_cases(path: Path) -> tuple[Case, ...]:
    """Read what ``write_cases`` made. Raises InputError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            cases = [Case({}, {}) for _ in range(1 + max(entry[0] for entry in about))]
            for place, (index, side, name, wire, shape) in enumerate(about):
                packed = stored[f"{place:04d}"]
                getattr(cases[index], side)[name] = _unpack(packed, dtypes.from_wire(wire), shape)
    except (OSError, ValueError, KeyError) as exc:
        raise InputError(f"{path}: not a file of recorded cases: {exc}") from exc
    return tuple(cases)


def _difference(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> float:
    if got.shape != want.shape or got.dtype != want.dtype:
        return math.inf
    if got.dtype.kind in "OSUb" or not got.size:
        return 0.0 if np.array_equal(got, want) else math.inf
    a, b = got.astype(np.float64), want.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    apart = np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, b))
    return float(np.where(np.isnan(apart), np.inf, apart).max())


def _pack(array: np.ndarray[Any, Any], dtype: DataType) -> np.ndarray[Any, Any]:
    if dtype.wire == "BYTES":
        packed = serialize_byte_tensor(array)
        return np.frombuffer(packed.item() if packed.size else b"", np.uint8)
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def _unpack(packed: np.ndarray[Any, Any], dtype: DataType, shape: Sequence[int]) -> Any:
    if dtype.wire == "BYTES":
        return deserialize_bytes_tensor(packed.tobytes()).reshape(shape)
    return np.frombuffer(packed.tobytes(), dtype.numpy).reshape(shape)
