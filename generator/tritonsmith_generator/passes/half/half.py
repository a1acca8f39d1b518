"""FP16 and BF16: the whole graph lowered, inputs and outputs kept in FP32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Condition, PassResult
from tritonsmith_generator.passes.half.lowering import Lowered, lower
from tritonsmith_generator.passes.half.selection import HalfType
from tritonsmith_generator.passes.half.values import BF16, FP16
from tritonsmith_generator.passes.model import read_model
from tritonsmith_generator.passes.node_selection import ASKED_FOR, check_patterns
from tritonsmith_generator.passes.report import Stopwatch

__all__ = ["Bf16", "Fp16"]

# Convolutions and recurrent layers take BF16 from this opset on.
BF16_OPSET = 22


@dataclass(frozen=True)
class Fp16:
    """Lower to FP16.

    Attributes:
        keep: names or patterns of nodes, operators and tensors that are left in FP32.
        for_onnx_runtime: leave alone what it crashes on in FP16.
    """

    keep: tuple[str, ...] = ()
    for_onnx_runtime: bool = False
    name: str = "fp16"
    requires: tuple[Condition, ...] = (conditions.tidy,)
    ensures: tuple[Condition, ...] = (conditions.tidy,)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        apart = frozenset(_before_matmul(model)) if self.for_onnx_runtime else frozenset()
        return _lowered(self.name, model, workdir, replace(FP16, apart=apart), self.keep)


@dataclass(frozen=True)
class Bf16:
    """Lower to BF16, GRU and what is compiled with it apart. ``keep`` as in Fp16."""

    keep: tuple[str, ...] = ()
    name: str = "bf16"
    requires: tuple[Condition, ...] = (conditions.tidy, conditions.opset_at_least(BF16_OPSET))
    ensures: tuple[Condition, ...] = (conditions.tidy, conditions.opset_at_least(BF16_OPSET))

    def apply(self, model: Path, workdir: Path) -> PassResult:
        return _lowered(self.name, model, workdir, BF16, self.keep)


def _before_matmul(model: Path) -> Iterator[str]:
    """Yield outputs of the Transposes of the first axis that a MatMul reads.

    ONNX Runtime 1.31 fuses both for the CPU, and crashes over that while it loads them in FP16.
    """
    for graph in onnx_file.graphs(onnx_file.read(model).proto.graph):
        maker = {name: node for node in graph.node for name in node.output}
        todo = [name for node in graph.node if node.op_type == "MatMul" for name in node.input]
        while todo:
            node = maker.get(todo.pop())
            if node is not None and node.op_type == "Identity":
                todo.append(node.input[0])
            elif node is not None and node.op_type == "Transpose" and _first_axis(node) != 0:
                yield node.output[0]


def _first_axis(node: onnx.NodeProto) -> int | None:
    """Return the axis that a Transpose makes the first; None where it turns all of them round."""
    return next((a.ints[0] for a in node.attribute if a.name == "perm"), None)


def _lowered(
    name: str, model: Path, workdir: Path, half: HalfType, keep: tuple[str, ...]
) -> PassResult:
    watch = Stopwatch(name, model)
    work = read_model(model)
    check_patterns(work.proto, keep)
    done = lower(work, half, keep)
    result = watch.result(work.write(workdir / "model.onnx"), _notes(done, half), done.kept)
    if not result.report.lowered:
        raise InputError(_nothing(done, half))
    onnx.checker.check_model(str(result.model))
    return result


def _notes(done: Lowered, half: HalfType) -> tuple[str, ...]:
    notes = [f"{done.casts} casts were added"] if done.casts else []
    if done.clipped:
        notes.append(
            f"{_some(done.clipped)}: mask values beyond {half.largest:g} were clipped to it"
        )
    if done.raised:
        notes.append(f"{_some(done.raised)}: too small for {half.name}, raised to its smallest")
    reasons = dict.fromkeys(reason for reason in done.kept.values() if reason != ASKED_FOR)
    for reason in reasons:
        nodes = [name for name, why in done.kept.items() if why == reason]
        notes.append(f"{_some(nodes)} stayed in FP32: {reason}")
    return tuple(notes)


def _nothing(done: Lowered, half: HalfType) -> str:
    reasons = [f"{node}: {reason}" for node, reason in done.kept.items()][:5]
    why = "; ".join(reasons) or "the model has no FP32 computation"
    return f"nothing was lowered to {half.name}: {why}; use precision fp32"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
