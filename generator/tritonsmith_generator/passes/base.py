"""What a pass is: a step from one ONNX file to another that says what it needs and what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

__all__ = ["Array", "Arrays", "Condition", "Pass", "PassReport", "PassResult"]

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Condition:
    """Something that holds for a model, or doesn't.

    ``broken`` looks at the graph (its large weights may be missing) and returns what contradicts
    the condition, in words, or None where the condition holds.
    """

    text: str
    broken: Callable[[onnx.ModelProto], str | None]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PassReport:
    """What a pass did.

    Attributes:
        name: the pass.
        nodes: nodes in the result, sub-graphs included.
        lowered: nodes that compute in FP16 or BF16 in the result (casts are not counted).
        kept: names of the nodes left as they were, with the reason.
        quantize, dequantize: Q and DQ nodes in the result.
        bytes_before, bytes_after: size on disk, external weights included.
        seconds: wall time.
        notes: everything else that the user should know, in sentences.
        changed: False where there was nothing to do.
    """

    name: str
    nodes: int
    lowered: int
    kept: Mapping[str, str]
    quantize: int
    dequantize: int
    bytes_before: int
    bytes_after: int
    seconds: float
    notes: tuple[str, ...]
    changed: bool = True


@dataclass(frozen=True)
class PassResult:
    """The new model (the old path where there was nothing to do) and the report."""

    model: Path
    report: PassReport


class Pass(Protocol):
    """A frozen value: the options of the step. ``apply`` does it."""

    @property
    def name(self) -> str:
        """A short word: the step's name in messages and its folder's name."""

    @property
    def requires(self) -> tuple[Condition, ...]:
        """What has to hold for the model before."""

    @property
    def ensures(self) -> tuple[Condition, ...]:
        """What holds for the model after."""

    def apply(self, model: Path, workdir: Path) -> PassResult:
        """Read ``model``, write the result into ``workdir`` (an empty folder of its own).

        Raises InputError when the model cannot be changed this way, with the reason.
        """
