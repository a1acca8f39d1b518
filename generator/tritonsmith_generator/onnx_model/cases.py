"""Cases: recorded inputs with their reference outputs, kept in the model's folder.

``MODEL/cases/VERSION.npz`` belongs to one version. Triton ignores the folder (its name is no
version number), and the cases travel with the repository to wherever it is served.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tritonsmith_client import dtypes
from tritonsmith_client.dtypes import DataType
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.profiles import Profile, Shape, Shaping
from tritonsmith_generator.onnx_model.reference import Arrays, Reference
from tritonsmith_generator.onnx_model.signature import Signature

__all__ = [
    "Case",
    "case_path",
    "corners",
    "largest_difference",
    "load_cases",
    "record_cases",
    "served_cases",
    "write_cases",
]

# Rows in a recorded batch: enough to see whether rows depend on each other.
_ROWS = 3
# How far a row's answer alone may be from its answer in a batch: kernels differ with the batch.
_ROW_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Case:
    """One input of the model with ONNX Runtime's own answer, as full arrays by tensor name."""

    inputs: Arrays
    outputs: Arrays


def record_cases(
    model: Path,
    proto: onnx.ModelProto,
    signature: Signature,
    shaping: Shaping,
    samples: Sequence[Mapping[str, Any]] = (),
    exact: bool = False,
) -> tuple[Case, ...]:
    """Ask ONNX Runtime about the samples; without any, at the corners of every profile.

    Those are its smallest and its usual shapes, with random inputs of a fixed seed: standard
    normal floats, integers below what the graph looks up with them. Raises InputError if the
    model fails, or if its rows depend on each other although axis 0 was taken for the batch.
    """
    reference = Reference(model, exact)
    names = [tensor.name for tensor in signature.outputs]
    made = tuple(_corner_inputs(proto, signature, shaping))
    asked = [dict(sample) for sample in samples] or made
    cases = tuple(Case(inputs, reference(inputs, names)) for inputs in asked)
    if shaping.max_batch_size > 1:
        usual = Case(made[-1], reference(made[-1], names)) if samples else cases[-1]
        _refuse_dependent_rows(reference, usual, shaping)
    return cases


def _corner_inputs(
    proto: onnx.ModelProto, signature: Signature, shaping: Shaping
) -> Iterator[Arrays]:
    bounds = _lookup_bounds(proto)
    for seed, (shapes, values) in enumerate(corners(shaping)):
        random = np.random.default_rng(seed)
        inputs = {
            t.name: _random(random, t.dtype, shapes[t.name], bounds.get(t.name, 2))
            for t in signature.inputs
        }
        known = {
            name: np.array(value, inputs[name].dtype).reshape(shapes[name])
            for name, value in values.items()
        }
        yield {**inputs, **known}


def largest_difference(got: Mapping[str, Any], want: Mapping[str, Any]) -> float:
    """The largest absolute difference over all outputs; inf where shape, dtype or bytes differ.

    NaN on both sides is no difference, on one side it is inf.
    """
    if set(got) != set(want):
        return math.inf
    return max((_difference(np.asarray(got[n]), np.asarray(want[n])) for n in want), default=0.0)


def case_path(model_folder: Path, version: int) -> Path:
    """Where the cases of a version lie."""
    return model_folder / "cases" / f"{version}.npz"


def served_cases(cases: Sequence[Case], served: Signature) -> tuple[Case, ...]:
    """The cases in the data types of the served signature (TensorRT makes FP32 of FP64)."""
    dtype = {t.name: t.dtype.numpy for t in (*served.inputs, *served.outputs)}

    def cast(arrays: Arrays) -> Arrays:
        return {name: array.astype(dtype[name], copy=False) for name, array in arrays.items()}

    return tuple(Case(cast(case.inputs), cast(case.outputs)) for case in cases)


def write_cases(cases: Sequence[Case]) -> bytes:
    """The cases as the content of one ``.npz`` file: plain bytes, no pickles, reproducible."""
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


def corners(shaping: Shaping) -> Iterator[tuple[Mapping[str, Shape], Mapping[str, Shape]]]:
    """What is asked without samples: shapes of all inputs, and values of those that say shapes."""
    seen = set()
    known = shaping.values or ({},) * len(shaping.profiles)
    for profile, values in zip(shaping.profiles, known, strict=True):
        for corner in (
            (_min(profile), _min(values)),
            (_usual(profile, shaping), _opt(values)),
        ):
            if str(corner) not in seen:
                seen.add(str(corner))
                yield corner


def _min(ranges: Profile) -> Mapping[str, Shape]:
    return {name: r.min for name, r in ranges.items()}


def _opt(ranges: Profile) -> Mapping[str, Shape]:
    return {name: r.opt for name, r in ranges.items()}


def _usual(profile: Profile, shaping: Shaping) -> Mapping[str, Shape]:
    if not shaping.max_batch_size:
        return _opt(profile)
    rows = min(_ROWS, shaping.max_batch_size)
    return {name: (min(max(rows, r.min[0]), r.max[0]), *r.opt[1:]) for name, r in profile.items()}


def _random(
    random: np.random.Generator, dtype: DataType, shape: Shape, bound: int
) -> np.ndarray[Any, Any]:
    if dtype.wire == "BYTES":
        return np.array(
            [f"text {n}".encode() for n in range(math.prod(shape))], dtype=np.object_
        ).reshape(shape)
    if dtype.numpy.kind in "iu":
        return random.integers(0, bound, shape).astype(dtype.numpy)
    if dtype.wire == "BOOL":
        return random.integers(0, 2, shape).astype(np.bool_)
    return random.standard_normal(shape).astype(dtype.numpy)


def _lookup_bounds(proto: onnx.ModelProto) -> dict[str, int]:
    """For each input that indexes a weight (an embedding): the number of its rows."""
    rows = {w.name: w.dims[0] for w in proto.graph.initializer if w.dims}
    return {
        node.input[1]: int(rows[node.input[0]])
        for node in proto.graph.node
        if node.op_type == "Gather" and node.input[0] in rows
    }


def _refuse_dependent_rows(reference: Reference, case: Case, shaping: Shaping) -> None:
    rows = next(iter(case.inputs.values())).shape[0]
    smallest = max(r.min[0] for r in shaping.profiles[-1].values())
    if rows < 2 or smallest > 1:
        return
    alone = reference({name: array[:1] for name, array in case.inputs.items()}, list(case.outputs))
    for name, together in case.outputs.items():
        if together.shape[:1] != (rows,):
            raise InputError(
                f"output '{name}' has shape {list(together.shape)} for a batch of {rows}, so its "
                "axis 0 is not the batch: set 'batching: false' for this model"
            )
        if together.dtype.kind in "fV" and _relative(alone[name], together[:1]) > _ROW_TOLERANCE:
            raise InputError(
                f"output '{name}': the answer for a row changes with the other rows of its batch, "
                "so axis 0 is not a batch axis and batching would give wrong answers: set "
                "'batching: false' for this model"
            )


def _relative(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    scale = float(np.linalg.norm(b.astype(np.float64))) or 1.0
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64))) / scale


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
