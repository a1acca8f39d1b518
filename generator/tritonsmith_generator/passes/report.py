"""What a graph computes in: nodes by floating-point type, Q and DQ nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import onnx
from onnx import TensorProto

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import PassReport, PassResult
from tritonsmith_generator.passes.model import read_model
from tritonsmith_generator.passes.tensor_types import tensor_types

__all__ = ["NodeCounts", "Stopwatch", "count_nodes", "float_type"]

FLOAT_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.DOUBLE: "FP64",
}

# These move or hold values, they compute nothing.
_NO_COMPUTE = frozenset({"Cast", "Constant", "Identity", "QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class NodeCounts:
    """Counts over the main graph and its sub-graphs.

    Attributes:
        nodes: all nodes.
        by_type: computing nodes by the type of their first floating-point output.
        operators: nodes by operator.
    """

    nodes: int
    by_type: Mapping[str, int]
    operators: Mapping[str, int]

    @property
    def lowered(self) -> int:
        return self.by_type.get("FP16", 0) + self.by_type.get("BF16", 0)

    @property
    def quantize(self) -> int:
        return self.operators.get("QuantizeLinear", 0)

    @property
    def dequantize(self) -> int:
        return self.operators.get("DequantizeLinear", 0)


def count_nodes(path: Path) -> NodeCounts:
    """Count the nodes of a model on disk."""
    proto = onnx.shape_inference.infer_shapes(read_model(path).proto)
    nodes = [node for graph in onnx_file.graphs(proto.graph) for node in graph.node]
    return NodeCounts(
        nodes=len(nodes),
        by_type=Counter(_types_of_nodes(proto.graph, conditions.opset_of(proto))),
        operators=Counter(node.op_type for node in nodes),
    )


def _types_of_nodes(main: onnx.GraphProto, opset: int) -> Iterator[str]:
    types: dict[str, int] = {}
    for graph in onnx_file.graphs(main):  # a body comes after the graph around it
        types = tensor_types(graph, types, opset)
        for node in graph.node:
            found = (float_type(types.get(name, 0)) for name in node.output)
            first = next((name for name in found if name), None)
            if first and node.op_type not in _NO_COMPUTE:
                yield first


def float_type(number: int) -> str | None:
    """Return the name of a floating-point type by its ONNX number; None for any other type."""
    return FLOAT_TYPES.get(number)


class Stopwatch:
    """Started when a pass starts; makes its result when it ends."""

    def __init__(self, name: str, before: Path) -> None:
        self._name, self._before, self._start = name, before, perf_counter()

    def result(
        self, after: Path, notes: tuple[str, ...] = (), kept: Mapping[str, str] | None = None
    ) -> PassResult:
        """Return the result for the model written at ``after``, its nodes counted."""
        seconds = perf_counter() - self._start
        counts = count_nodes(after)
        report = PassReport(
            name=self._name,
            nodes=counts.nodes,
            lowered=counts.lowered,
            kept=kept or {},
            quantize=counts.quantize,
            dequantize=counts.dequantize,
            bytes_before=onnx_file.read(self._before).size,
            bytes_after=onnx_file.read(after).size,
            seconds=seconds,
            notes=notes,
            changed=after != self._before,
        )
        return PassResult(after, report)
