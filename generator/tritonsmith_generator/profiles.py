"""Optimization profiles: the smallest, the most common and the largest shape of each input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Profile", "ShapeRange"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeRange:
    """min <= opt <= max, axis by axis; the full shapes, batch axis included."""

    min: Shape
    opt: Shape
    max: Shape


# One range for each input, static inputs included (min == opt == max).
Profile = Mapping[str, ShapeRange]
