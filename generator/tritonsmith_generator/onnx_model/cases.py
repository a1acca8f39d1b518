"""Cases: recorded inputs with their reference outputs, kept in the model's folder.

``MODEL/cases/VERSION.npz`` belongs to one version. Triton ignores the folder (its name is no
version number), and the cases travel with the repository to wherever it is served.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tritonsmith_client.dtypes import DataType
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.case_file import Case
from tritonsmith_generator.onnx_model.profiles import Profile, ProfileSet, Shape
from tritonsmith_generator.onnx_model.reference import Arrays, Reference
from tritonsmith_generator.onnx_model.rows import (
    Rows,
    check_rows,
    random_answers,
    refused_batch,
    rows_of,
)
from tritonsmith_generator.onnx_model.signature import Signature

__all__ = ["corners", "record_cases"]

# Rows in a recorded batch: enough to see whether rows depend on each other.
_ROWS = 3


def record_cases(
    model: Path,
    proto: onnx.ModelProto,
    signature: Signature,
    profile_set: ProfileSet,
    samples: Sequence[Mapping[str, Any]] = (),
    exact: bool = False,
) -> tuple[tuple[Case, ...], Rows]:
    """Ask ONNX Runtime about the samples; without any, at the corners of every profile.

    Those are its smallest and its usual shapes, with random inputs of a fixed seed: standard
    normal floats, integers below what the graph looks up with them. Raises InputError if the
    model fails. ``Rows`` says what is known of the rows of a batch, if axis 0 may be one.
    """
    reference = Reference(model, exact)
    names = [tensor.name for tensor in signature.outputs]
    made = partial(_corner_inputs, proto, signature, profile_set)
    asked = [dict(sample) for sample in samples] or list(made())
    smallest = profile_set.rows[0] if profile_set.rows else 0
    answered = [_answered(reference, inputs, names, smallest) for inputs in asked]
    cases, refused = tuple(case for case, _ in answered), [why for _, why in answered if why]
    if refused:
        return cases, Rows(depend=refused[0])
    random = random_answers(reference, proto, cases[0].inputs)
    if random or not profile_set.rows:
        return cases, Rows(random=random)
    try:
        rows = rows_of(asked) or list(made())[-1] if samples else None
        several = cases[-1] if rows is None else Case(rows, reference(rows, names))
    except InputError:
        return cases, Rows(unknown="the samples are no different rows, and it takes no others")
    return cases, check_rows(reference, proto, several, *profile_set.rows)


def _answered(
    reference: Reference, inputs: Arrays, names: Sequence[str], smallest: int
) -> tuple[Case, str]:
    """Return a case of ``smallest`` rows (0: of all), and why, where the model takes no more."""
    try:
        return Case(inputs, reference(inputs, names)), ""
    except InputError:
        count = min((len(array) for array in inputs.values() if array.ndim), default=0)
        if not 0 < smallest < count:
            raise
        fewer = {name: array[:smallest] for name, array in inputs.items()}
        with suppress(InputError):
            return Case(fewer, reference(fewer, names)), refused_batch(smallest, count)
        raise


def _corner_inputs(
    proto: onnx.ModelProto, signature: Signature, profile_set: ProfileSet
) -> Iterator[Arrays]:
    bounds = _lookup_bounds(proto)
    for seed, (shapes, values) in enumerate(corners(profile_set)):
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


def corners(profile_set: ProfileSet) -> Iterator[tuple[Mapping[str, Shape], Mapping[str, Shape]]]:
    """Yield what is asked without samples: all inputs' shapes, and the shape tensors' values."""
    seen = set()
    known = profile_set.values or ({},) * len(profile_set.profiles)
    for profile, values in zip(profile_set.profiles, known, strict=True):
        for corner in (
            (_min(profile), _min(values)),
            (_usual(profile, profile_set), _opt(values)),
        ):
            if str(corner) not in seen:
                seen.add(str(corner))
                yield corner


def _min(ranges: Profile) -> Mapping[str, Shape]:
    return {name: r.min for name, r in ranges.items()}


def _opt(ranges: Profile) -> Mapping[str, Shape]:
    return {name: r.opt for name, r in ranges.items()}


def _usual(profile: Profile, profile_set: ProfileSet) -> Mapping[str, Shape]:
    if not profile_set.max_batch_size:
        return _opt(profile)
    rows = min(_ROWS, profile_set.max_batch_size)
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
