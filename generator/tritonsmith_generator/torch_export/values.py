"""An export as values: what was written and how far its answers are from PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Check", "Export", "Exported"]

# Axis number to the axis's name, per input. Axes of the same name have the same size.
Dynamic = Mapping[str, Mapping[int, str]]
Sizes = dict[str, int]


@dataclass(frozen=True)
class Export:
    """What is exported. A factory returns one when a bare module does not say enough.

    ``inputs`` are example tensors, by parameter name of ``forward`` or in its order; a text such
    as ``"FP32[2,784]"`` stands for random numbers (ones, where the type is no float).
    ``dynamic`` names the axes that may change, by input: ``{"image": {0: "batch"}}``.
    ``metadata`` is written into the ONNX file (``metadata_props``).
    """

    module: Any
    inputs: Mapping[str, Any] | Sequence[Any] = ()
    dynamic: Dynamic = field(default_factory=dict)
    outputs: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """The largest difference between torch and ONNX Runtime in one output, at these sizes."""

    output: str
    sizes: Mapping[str, int]
    max_difference: float


@dataclass(frozen=True)
class Exported:
    """A written model: its files (the .onnx first), and how far it is from torch."""

    path: Path
    files: tuple[Path, ...]
    opset: int
    exporter: str
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]

    @property
    def max_difference(self) -> float:
        return max(check.max_difference for check in self.checks)
