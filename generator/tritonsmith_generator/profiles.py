"""Optimization profiles: the smallest, the most common and the largest shape of each input.

They come from the spec's ``shapes`` or are derived from the signature, and they decide
``max_batch_size``: a dynamic axis 0 in every tensor is the batch axis, anything else is served
with full shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.signature import Signature, Tensor
from tritonsmith_generator.spec import ModelSpec, Shapes

__all__ = ["Profile", "ShapeRange", "Shaping", "derive_shaping"]

Shape = tuple[int, ...]

# What a dynamic axis is taken to be where the spec doesn't say: (min, opt, max).
DEFAULT_BATCH = (1, 8, 32)
DEFAULT_AXIS = (1, 128, 512)


@dataclass(frozen=True)
class ShapeRange:
    """min <= opt <= max, axis by axis; the full shapes, batch axis included."""

    min: Shape
    opt: Shape
    max: Shape


# One range for each input, static inputs included (min == opt == max).
Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True)
class Shaping:
    """The shapes in which a model is built and served.

    ``max_batch_size`` is 0 where requests carry full shapes; ``reason`` says in words where the
    number comes from.
    """

    max_batch_size: int
    profiles: tuple[Profile, ...]
    reason: str


def derive_shaping(signature: Signature, spec: ModelSpec) -> Shaping:
    """Profiles and batch size for a model. Raises InputError for shapes that don't fit it."""
    obstacle = _why_not_batched(signature, spec)
    limit = spec.batching.max if spec.batching else None
    if limit and obstacle:
        raise InputError(f"batching.max is {limit}, but {obstacle}")
    batch = (1, min(DEFAULT_BATCH[1], limit or DEFAULT_BATCH[2]), limit or DEFAULT_BATCH[2])
    given = spec.shapes or ({},)
    profiles = tuple(_profile(signature, shapes, batch) for shapes in given)
    if obstacle:
        return Shaping(0, profiles, f"requests carry full shapes: {obstacle}")
    # As in Triton's TensorRT backend: what every input of a profile takes, over all profiles.
    largest = max(min(r.max[0] for r in profile.values()) for profile in profiles)
    if limit and limit > largest:
        raise InputError(f"batching.max is {limit}, but the shapes allow batches up to {largest}")
    reason = f"axis 0 of '{signature.inputs[0].name}' is the batch, up to {limit or largest}"
    origin = "batching.max" if limit else "shapes" if spec.shapes else "a default; see batching.max"
    return Shaping(limit or largest, profiles, f"{reason} ({origin})")


def _why_not_batched(signature: Signature, spec: ModelSpec) -> str | None:
    """What keeps axis 0 from being the batch axis, in words; None if it is the batch axis."""
    if spec.batching is None:
        return "the spec says batching: false"
    if not signature.inputs:
        return "the model has no inputs"
    every = (*signature.inputs, *signature.outputs)
    for tensor in every:
        if 0 not in tensor.dynamic_axes:
            first = f"axis 0 is fixed at {tensor.shape[0]}" if tensor.shape else "it is a scalar"
            return f"'{tensor.name}' has no dynamic batch axis ({first})"
    symbols = {str(tensor.shape[0]): tensor.name for tensor in every if tensor.shape[0] != "?"}
    if len(symbols) > 1:
        named = " and ".join(f"'{axis}' in '{name}'" for axis, name in symbols.items())
        return f"axis 0 is not the same axis in all tensors ({named})"
    return None


def _profile(signature: Signature, shapes: Mapping[str, Shapes], batch: Shape) -> Profile:
    names = [tensor.name for tensor in signature.inputs]
    for name in shapes:
        if name not in names:
            raise InputError(f"shapes: the model has no input '{name}'; it has: {', '.join(names)}")
    return {
        tensor.name: _given(tensor, shapes[tensor.name])
        if tensor.name in shapes
        else _derived(tensor, batch)
        for tensor in signature.inputs
    }


def _derived(tensor: Tensor, batch: Shape) -> ShapeRange:
    def shape(which: int) -> Shape:
        return tuple(
            size if isinstance(size, int) else (DEFAULT_AXIS if axis else batch)[which]
            for axis, size in enumerate(tensor.shape)
        )

    return ShapeRange(shape(0), shape(1), shape(2))


def _given(tensor: Tensor, shapes: Shapes) -> ShapeRange:
    for which, shape in (("min", shapes.min), ("opt", shapes.opt), ("max", shapes.max)):
        where = f"shapes.{tensor.name}.{which} {list(shape)}"
        if len(shape) != len(tensor.shape):
            raise InputError(
                f"{where} has {len(shape)} axes, but the model's input {tensor} has "
                f"{len(tensor.shape)}"
            )
        for axis, (size, fixed) in enumerate(zip(shape, tensor.shape, strict=True)):
            if isinstance(fixed, int) and size != fixed:
                raise InputError(
                    f"{where}: axis {axis} is {size}, but the model fixes it at {fixed}"
                )
    for axis, (low, opt, high) in enumerate(zip(shapes.min, shapes.opt, shapes.max, strict=True)):
        if not low <= opt <= high:
            raise InputError(
                f"shapes.{tensor.name}: axis {axis} needs min <= opt <= max, "
                f"given are {low}, {opt}, {high}"
            )
    return ShapeRange(shapes.min, shapes.opt, shapes.max)
