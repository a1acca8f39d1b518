"""The shapes that a model is built for, from its signature and what the spec says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.profiles import (
    Profile,
    ProfileSet,
    Shape,
    ShapeRange,
    check_range,
)
from tritonsmith_generator.onnx_model.signature import Dim, Signature, Tensor
from tritonsmith_generator.pipeline.batch_axis import (
    FULL_SHAPES,
    another_axis,
    different_names,
    no_batch,
)
from tritonsmith_generator.spec.schema import ModelSpec, Shapes

__all__ = ["derive_profile_set"]

# What a dynamic axis is taken to be where the spec doesn't say: (min, opt, max).
DEFAULT_BATCH = (1, 8, 32)
DEFAULT_AXIS = (1, 128, 512)


def derive_profile_set(signature: Signature, spec: ModelSpec) -> ProfileSet:
    """Profiles and batch size for a model. Raises InputError for shapes that don't fit it."""
    obstacle = no_batch(signature, spec)
    limit = spec.batching.max if spec.batching else None
    if limit and obstacle:
        raise InputError(f"batching.max is {limit}, but {obstacle}")
    other = another_axis(signature, spec)
    batch = (1, min(DEFAULT_BATCH[1], limit or DEFAULT_BATCH[2]), limit or DEFAULT_BATCH[2])
    given = spec.shapes or ({},)
    profiles = tuple(_profile(signature, s, DEFAULT_AXIS if other else batch) for s in given)
    values = tuple(_values(signature, shapes) for shapes in given)
    if not any(values):
        values = ()
    if obstacle or other:
        return ProfileSet(0, profiles, f"{FULL_SHAPES}{obstacle or other}", values)
    # As in Triton's TensorRT backend: what every input of a profile takes, over all profiles.
    largest = max(min(r.max[0] for r in profile.values()) for profile in profiles)
    if limit and limit > largest:
        raise InputError(f"batching.max is {limit}, but the shapes allow batches up to {largest}")
    last = profiles[-1].values()
    rows = (max(1, *(r.min[0] for r in last)), min(limit or largest, *(r.max[0] for r in last)))
    differ = different_names(signature, spec)
    if differ:
        return ProfileSet(0, profiles, f"{FULL_SHAPES}{differ}", values, rows)
    reason = f"axis 0 of '{signature.inputs[0].name}' is the batch, up to {limit or largest}"
    origin = "batching.max" if limit else "shapes" if spec.shapes else "a default; see batching.max"
    return ProfileSet(limit or largest, profiles, f"{reason} ({origin})", values, rows)


def _profile(signature: Signature, shapes: Mapping[str, Shapes], batch: Shape) -> Profile:
    names = [tensor.name for tensor in signature.inputs]
    for name in shapes:
        if name not in names:
            raise InputError(f"shapes: the model has no input '{name}'; it has: {', '.join(names)}")
    given = {t.name: _given(t, shapes.get(t.name)) for t in signature.inputs}
    axes = dict(_named_axes(signature, given))
    return {t.name: given[t.name] or _derived(t, axes, batch) for t in signature.inputs}


def _named_axes(
    signature: Signature, given: Mapping[str, ShapeRange | None]
) -> Iterator[tuple[Dim, Shape]]:
    """Yield the sizes of the dynamic axes that have a name and are given for some input."""
    for tensor in signature.inputs:
        ranges = given[tensor.name]
        for axis in tensor.dynamic_axes:
            if ranges is not None and tensor.shape[axis] != "?":
                yield tensor.shape[axis], (ranges.min[axis], ranges.opt[axis], ranges.max[axis])


def _derived(tensor: Tensor, axes: Mapping[Dim, Shape], batch: Shape) -> ShapeRange:
    """Derive the ranges: an axis of the same name has the same sizes, others the defaults."""

    def size(axis: int, dim: Dim, which: int) -> int:
        if isinstance(dim, int):
            return dim
        return axes.get(dim, DEFAULT_AXIS if axis else batch)[which]

    def shape(which: int) -> Shape:
        return tuple(size(axis, dim, which) for axis, dim in enumerate(tensor.shape))

    return ShapeRange(shape(0), shape(1), shape(2))


def _given(tensor: Tensor, shapes: Shapes | None) -> ShapeRange | None:
    if shapes is None or shapes.min is None or shapes.opt is None or shapes.max is None:
        return None
    given = ShapeRange(shapes.min, shapes.opt, shapes.max)
    check_range(f"shapes.{tensor.name}, {tensor}", tensor, given)
    return given


def _values(signature: Signature, shapes: Mapping[str, Shapes]) -> Profile:
    found = {}
    for tensor in signature.inputs:
        values = shapes[tensor.name].values if tensor.name in shapes else None
        if values is not None:
            found[tensor.name] = ShapeRange(values.min, values.opt, values.max)
            _check_values(f"shapes.{tensor.name}.values, {tensor}", tensor, found[tensor.name])
    return found


def _check_values(where: str, tensor: Tensor, values: ShapeRange) -> None:
    if tensor.dtype.numpy.kind not in "iu":
        raise InputError(f"{where}: only the values of an integer input can say shapes")
    if tensor.dynamic_axes:
        raise InputError(f"{where}: the input needs a fixed shape, so that its values can be known")
    count = math.prod(tensor.dims)
    for end, given in (("min", values.min), ("opt", values.opt), ("max", values.max)):
        if len(given) != count:
            raise InputError(
                f"{where}: {end} is {list(given)}, {len(given)} values; the input has {count}"
            )
    for index, (low, best, high) in enumerate(zip(values.min, values.opt, values.max, strict=True)):
        if not low <= best <= high:
            raise InputError(
                f"{where}: value {index} has min, opt and max {low}, {best} and {high}; "
                "they must be min <= opt <= max"
            )
