"""Which nodes a 16-bit pass leaves in FP32, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx
from onnx import AttributeProto, TensorProto

from tritonsmith_generator.passes.node_selection import ASKED_FOR, matches
from tritonsmith_generator.passes.schema import STANDARD, operator
from tritonsmith_generator.passes.tensor_types import NO_TENSOR, Types

__all__ = ["HalfType", "exact_nodes", "reason_to_keep"]

# TensorRT computes these in FP32 only, or half makes them useless (sums over long axes).
_FP32_OPERATORS = frozenset({"CumSum", "DFT", "MelWeightMatrix", "Range", "RoiAlign", "STFT"})
_TYPED_BY_ATTRIBUTE = frozenset({"Cast", "CastLike", "ConstantOfShape"})


@dataclass(frozen=True)
class HalfType:
    """FP16 or BF16: its name, its ONNX number, ONNX's name for it and its largest value.

    ``unable`` are operators that are not computed in it, ``apart`` first outputs of nodes that
    what runs the model cannot take in it.
    """

    name: str
    onnx: int
    schema: str
    largest: float
    unable: frozenset[str] = frozenset()
    apart: frozenset[str] = field(default=frozenset(), compare=False)


def reason_to_keep(
    node: onnx.NodeProto, types: Types, half: HalfType, opset: int, keep: Sequence[str]
) -> str | None:
    """Why a node stays in FP32; None if it can be lowered."""
    if matches(node, keep):
        return ASKED_FOR
    if node.domain not in STANDARD:
        return f"operator of domain '{node.domain}'"
    if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
        return "its body is lowered, its own inputs and outputs are not"
    if node.op_type in _FP32_OPERATORS:
        return "FP32 only"
    if node.op_type in half.unable:
        return f"TensorRT takes no {node.op_type} in {half.name}"
    if node.output[0] in half.apart:
        return f"ONNX Runtime crashes on a MatMul behind it in {half.name}"
    if unknown := next((n for n in (*node.input, *node.output) if n and not types.get(n)), None):
        return f"the type of '{unknown}' is unknown"
    if any(types.get(name) == NO_TENSOR for name in (*node.input, *node.output)):
        return "it handles a sequence or an optional value"
    found = operator(node, opset)
    if found is None:
        return f"ONNX has no such operator in opset {opset}"
    floats = [i for i, name in enumerate(node.output) if types.get(name) == TensorProto.FLOAT]
    if node.op_type not in _TYPED_BY_ATTRIBUTE:
        if any(not found.output_follows_input(i) for i in floats):
            return "it makes FP32 values out of none"
        if floats and not found.output_takes(floats[0], half.schema):
            return f"ONNX has no {half.name} form of it in opset {opset}"
    reads = [i for i, name in enumerate(node.input) if types.get(name) == TensorProto.FLOAT]
    if reads and not floats and not found.input_takes(reads[0], half.schema):
        return f"ONNX has no {half.name} form of it in opset {opset}"
    return None


# Through these a value computed from integers stays a value computed from integers.
_EXACT_OPERATORS = frozenset(
    {
        *("Abs", "Add", "Cast", "Ceil", "Clip", "Concat", "Cos", "Div", "Einsum", "Exp", "Expand"),
        *("Flatten", "Floor", "Gather", "Gemm", "Identity", "Log", "MatMul", "Max", "Min", "Mod"),
        *("Mul", "Neg", "Pow", "Range", "Reciprocal", "Reshape", "Round", "Sin", "Slice", "Split"),
        *("Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze"),
    }
)

_PERIODIC = frozenset({"Sin", "Cos"})
_INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})


def exact_nodes(graph: onnx.GraphProto, types: Types, constants: frozenset[str]) -> set[str]:
    """First outputs of the nodes that compute sizes or angles of positions from integers.

    Half holds integers up to 2048 (BF16 up to 256) only, so positions that go into a sine or
    back into an integer have to be computed in FP32.
    """
    counted: set[str] = set()
    for node in graph.node:
        if _counts(node, types, counted, constants):
            counted.update(node.output)
    wanted: set[str] = set()
    for node in reversed(graph.node):
        if not counted.intersection(node.output):
            continue
        to_integer = node.op_type == "Cast" and types.get(node.output[0]) in _INTEGERS
        if node.op_type in _PERIODIC or to_integer or wanted.intersection(node.output):
            wanted.update((*node.input, *node.output))
    return {node.output[0] for node in graph.node if wanted.intersection(node.output) & counted}


def _counts(
    node: onnx.NodeProto, types: Types, counted: set[str], constants: frozenset[str]
) -> bool:
    """Whether a node's output follows from integers and constants alone."""
    if node.op_type not in _EXACT_OPERATORS:
        return False
    if node.op_type in ("Cast", "Range") and types.get(node.input[0]) in _INTEGERS:
        return types.get(node.output[0]) == TensorProto.FLOAT
    floats = [name for name in node.input if types.get(name) == TensorProto.FLOAT]
    return any(name in counted for name in floats) and all(
        name in counted or name in constants for name in floats
    )
