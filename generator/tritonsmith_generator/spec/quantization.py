"""What the user may say about INT8, FP8 and INT4: how large a step is, and who shares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tritonsmith_generator.errors import InputError

__all__ = ["Method", "Quantization", "check_quantization"]

Method = Literal["minmax", "percentile", "entropy", "mse"]

# What NVIDIA documents for INT4 in TensorRT; TensorRT for RTX builds smaller blocks as well.
BLOCK_SIZES: Mapping[str, tuple[int, ...]] = {
    "tensorrt": (64, 128),
    "tensorrt_rtx": (16, 32, 64, 128),
}


@dataclass(frozen=True)
class Quantization:
    """Options of quantization. Each is heeded by the precisions that USED_BY names.

    Attributes:
        method: how the range of an activation is chosen from the samples. ``minmax`` clips
            nothing; ``percentile`` clips the largest values; ``entropy`` (Kullback-Leibler) and
            ``mse`` (least squares) weigh what is clipped against finer steps for the rest.
        percentile: share of values that are not clipped, in percent.
        max_samples: how many samples ranges are measured on at most; None takes all.
        per_channel: a step for each output channel of a weight, not one for the whole weight.
        reduce_range: weights in 7 bits instead of 8, which no CPU's kernels saturate with (see
            ``Reference``). None: where ONNX Runtime runs the model.
        smooth: SmoothQuant for transformers, whose activations have outliers in few channels: how
            much of them moves into the weights, from 0 to 1 (0.5 to 0.8 are usual); None: nothing.
        block_size: weights along the input channel that share a step; layers that it does not
            divide stay as they are. None takes 64, or with TensorRT for RTX the largest smaller
            one that divides every layer.
    """

    # The spec reads its ``quantization`` into this: a key that isn't one is an error there.
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    method: Method = "minmax"
    percentile: float = 99.99
    max_samples: int | None = None
    per_channel: bool = True
    reduce_range: bool | None = None
    smooth: float | None = None
    block_size: int | None = None


USED_BY: Mapping[str, tuple[str, ...]] = {
    "method": ("int8",),
    "percentile": ("int8",),
    "per_channel": ("int8",),
    "reduce_range": ("int8",),
    "smooth": ("int8",),
    "max_samples": ("int8", "fp8", "int4"),
    "block_size": ("int4",),
}


def check_quantization(options: Quantization, precision: str, library: str) -> None:
    """Raise InputError for a value that cannot be, and for an option of another precision."""
    if not 50 <= options.percentile <= 100:
        raise InputError(
            f"quantization.percentile is {options.percentile:g}; it must be 50 to 100, for "
            "example 99.99"
        )
    if options.max_samples is not None and options.max_samples < 1:
        raise InputError(f"quantization.max_samples is {options.max_samples}; 1 is the least")
    if options.smooth is not None and not 0 <= options.smooth <= 1:
        raise InputError(
            f"quantization.smooth is {options.smooth:g}; it must be 0 to 1, for example 0.7"
        )
    if options.percentile != Quantization.percentile and options.method != "percentile":
        raise InputError(
            "quantization.percentile has no effect without quantization.method: percentile"
        )
    quantizes = {precision for users in USED_BY.values() for precision in users}
    for name, users in USED_BY.items():
        given = getattr(options, name) != getattr(Quantization(), name)
        if given and precision in quantizes and precision not in users:
            raise InputError(
                f"quantization.{name} has no effect with precision {precision}; it is for "
                f"{', '.join(users)}"
            )
    sizes = BLOCK_SIZES.get(library, ())
    if precision == "int4" and options.block_size not in (None, *sizes):
        raise InputError(
            f"quantization.block_size is {options.block_size}; with target {library} it must be "
            f"one of {', '.join(map(str, sizes))}"
        )
