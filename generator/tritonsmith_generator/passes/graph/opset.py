"""Convert the graph up to a newer opset: precision needs newer forms of some operators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import version_converter

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Condition, PassResult
from tritonsmith_generator.passes.graph.tidy import tidy_up
from tritonsmith_generator.passes.model import read_model
from tritonsmith_generator.passes.report import Stopwatch

__all__ = ["Opset"]


@dataclass(frozen=True)
class Opset:
    """Raise the opset of the standard operators to ``minimum``; never lower it."""

    minimum: int
    name: str = "opset"
    requires: tuple[Condition, ...] = (conditions.tidy,)

    @property
    def ensures(self) -> tuple[Condition, ...]:
        return (conditions.opset_at_least(self.minimum), conditions.tidy)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        watch = Stopwatch(self.name, model)
        work = read_model(model)
        before = work.opset
        if before >= self.minimum:
            return watch.result(model)
        try:
            work.proto = version_converter.convert_version(work.proto, self.minimum)
        except Exception as exc:  # the C++ converter raises RuntimeError and its own ConvertError
            raise InputError(
                f"opset {before} cannot be converted to {self.minimum}: {_one_line(exc)}; "
                f"export the model again with opset_version={self.minimum}"
            ) from exc
        tidy_up(work)  # the converter adds nodes without names
        note = f"opset {before} became {self.minimum}"
        return watch.result(work.write(workdir / "model.onnx"), (note,))


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]
