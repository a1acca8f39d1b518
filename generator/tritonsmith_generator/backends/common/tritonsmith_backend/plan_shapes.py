"""Shapes and memory of a TensorRT plan: which profile fits, and where each tensor lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Ranges", "Region", "Shape", "choose_profile", "lay_out"]

Shape = tuple[int, ...]
# min, opt and max of each input
Ranges = Mapping[str, tuple[Shape, Shape, Shape]]
# cudaMalloc's own alignment; TensorRT asks for it, too
_ALIGNMENT = 256


@dataclass(frozen=True)
class Region:
    """Part of a buffer: ``size`` bytes from ``offset``."""

    offset: int
    size: int


def choose_profile(shapes: Mapping[str, Shape], profiles: Mapping[int, Ranges]) -> int:
    """Return the profile that allows these input shapes; of several, the one with the nearest opt.

    Raises ValueError with the allowed ranges if there is none.
    """
    fitting = [index for index, ranges in profiles.items() if _fits(shapes, ranges)]
    if not fitting:
        raise ValueError(_refusal(shapes, profiles))
    return min(fitting, key=lambda index: _distance(shapes, profiles[index]))


def _fits(shapes: Mapping[str, Shape], ranges: Ranges) -> bool:
    return all(
        len(shape) == len(ranges[name][0])
        and all(
            a <= b <= c for a, b, c in zip(ranges[name][0], shape, ranges[name][2], strict=True)
        )
        for name, shape in shapes.items()
        if name in ranges
    )


def _distance(shapes: Mapping[str, Shape], ranges: Ranges) -> int:
    return sum(
        abs(given - best)
        for name, shape in shapes.items()
        if name in ranges
        for given, best in zip(shape, ranges[name][1], strict=True)
    )


def _refusal(shapes: Mapping[str, Shape], profiles: Mapping[int, Ranges]) -> str:
    given = ", ".join(f"'{name}' {list(shape)}" for name, shape in shapes.items())
    allowed = "; ".join(
        f"profile {index}: "
        + ", ".join(f"'{n}' {list(low)} to {list(high)}" for n, (low, _, high) in ranges.items())
        for index, ranges in profiles.items()
    )
    return f"no profile of the plan allows inputs of shape {given}. It allows {allowed}"


def lay_out(sizes: Mapping[str, int], first: Sequence[str] = ()) -> tuple[dict[str, Region], int]:
    """Where each tensor lies in one buffer, the ones in ``first`` before the rest; and its size.

    A tensor without elements gets an address of its own all the same: TensorRT wants one.
    """
    regions: dict[str, Region] = {}
    end = 0
    for name in [*first, *(name for name in sizes if name not in first)]:
        regions[name] = Region(end, sizes[name])
        end += max(1, -(-sizes[name] // _ALIGNMENT)) * _ALIGNMENT
    return regions, end
