"""The signature of a model: names, data types and shapes of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process that builds an engine needs no numpy until TensorRT is loaded
    from tritonsmith_client.dtypes import DataType

__all__ = ["Dim", "Signature", "Tensor"]

# A fixed size, or the name of a dynamic axis; "?" where the model gives it no name.
Dim = int | str


@dataclass(frozen=True)
class Tensor:
    """One input or output. ``shape`` is the full shape, batch axis included."""

    name: str
    dtype: DataType
    shape: tuple[Dim, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape as Triton and TensorRT write it: -1 for each dynamic axis."""
        return tuple(d if isinstance(d, int) else -1 for d in self.shape)

    @property
    def dynamic_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis, d in enumerate(self.shape) if isinstance(d, str))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out, in the model's own order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def input(self, name: str) -> Tensor:
        """Return the input of this name. Raises KeyError."""
        return {t.name: t for t in self.inputs}[name]

    def output(self, name: str) -> Tensor:
        """Return the output of this name. Raises KeyError."""
        return {t.name: t for t in self.outputs}[name]
