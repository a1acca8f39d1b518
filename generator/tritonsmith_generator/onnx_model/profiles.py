"""Optimization profiles: the smallest, the most common and the largest shape of each input.

They come from the spec's ``shapes`` or are derived from the signature, and they decide
``max_batch_size``: a dynamic axis 0 in every tensor is the batch axis, anything else is served
with full shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.signature import Signature, Tensor

__all__ = ["Profile", "Shape", "ShapeRange", "ProfileSet", "check_profiles", "check_range"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeRange:
    """min <= opt <= max, axis by axis; the full shapes, batch axis included."""

    min: Shape
    opt: Shape
    max: Shape


# One range for each input, static inputs included (min == opt == max).
Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True)
class ProfileSet:
    """The shapes in which a model is built and served.

    ``max_batch_size`` is 0 where requests carry full shapes; ``reason`` says in words where the
    number comes from. ``values`` has, for each profile, the values (not the shapes) of inputs
    that say shapes to the model; it is empty where there are none. ``rows`` is the smallest and
    the largest batch, where axis 0 may be one and ONNX Runtime has to be asked whether it is.
    """

    max_batch_size: int
    profiles: tuple[Profile, ...]
    reason: str
    values: tuple[Profile, ...] = ()
    rows: tuple[int, int] | None = None


def check_profiles(signature: Signature, profiles: tuple[Profile, ...]) -> None:
    """Raise InputError, with input, axis and values, unless the profiles suit the inputs."""
    dynamic = [tensor for tensor in signature.inputs if tensor.dynamic_axes]
    if dynamic and not profiles:
        raise InputError(
            f"the model has dynamic inputs and no profile: give min, opt and max shapes for "
            f"{', '.join(map(str, dynamic))}"
        )
    names = [tensor.name for tensor in signature.inputs]
    for number, profile in enumerate(profiles):
        for name in profile:
            if name not in names:
                raise InputError(
                    f"profile {number} names input '{name}', which the model has not; "
                    f"its inputs are: {', '.join(names)}"
                )
        for tensor in signature.inputs:
            if tensor.name in profile:
                check_range(f"profile {number}, {tensor}", tensor, profile[tensor.name])
            elif tensor.dynamic_axes:
                raise InputError(f"profile {number} has no shapes for the dynamic input {tensor}")


def check_range(where: str, tensor: Tensor, shapes: ShapeRange) -> None:
    """Raise InputError, beginning with ``where``, unless the range suits the input."""
    ends: Mapping[str, tuple[int, ...]] = {
        "min": shapes.min,
        "opt": shapes.opt,
        "max": shapes.max,
    }
    for end, shape in ends.items():
        if len(shape) != len(tensor.shape):
            raise InputError(
                f"{where}: {end} is {list(shape)}, of rank {len(shape)}; "
                f"the input has rank {len(tensor.shape)}"
            )
        for axis, (size, dim) in enumerate(zip(shape, tensor.dims, strict=True)):
            if dim not in (-1, size):
                raise InputError(
                    f"{where}: {end} is {list(shape)}, with {size} on axis {axis}; "
                    f"the model fixes that axis at {dim}"
                )
    for axis, (low, best, high) in enumerate(zip(shapes.min, shapes.opt, shapes.max, strict=True)):
        if not 0 <= low <= best <= high:
            raise InputError(
                f"{where}: on axis {axis} min, opt and max are {low}, {best} and {high}; "
                "they must be 0 <= min <= opt <= max"
            )
