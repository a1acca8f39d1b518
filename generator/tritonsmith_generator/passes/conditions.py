"""The conditions that passes need or make sure of."""

from __future__ import annotations

from collections import Counter

import onnx

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes.base import Condition

__all__ = [
    "is_quantized",
    "opset_at_least",
    "opset_of",
    "quantized",
    "standard_domains",
    "tidy",
    "unquantized",
]


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the standard operators; 0 where the model declares none."""
    versions = (o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    return max(versions, default=0)


def opset_at_least(minimum: int) -> Condition:
    """Return the condition that the standard operators are of this opset or a newer one."""

    def broken(proto: onnx.ModelProto) -> str | None:
        opset = opset_of(proto)
        return None if opset >= minimum else f"the model has opset {opset}"

    return Condition(f"opset {minimum} or newer", broken)


def _untidy(proto: onnx.ModelProto) -> str | None:
    made: set[str] = set()
    waiting = {name for node in proto.graph.node for name in node.output if name}
    for node in proto.graph.node:
        if late := next((name for name in node.input if name in waiting - made), None):
            return f"node '{node.name}' reads '{late}' before it is produced"
        made.update(node.output)
    names = Counter(n.name for g in onnx_file.graphs(proto.graph) for n in g.node)
    if names[""]:
        return f"{names['']} nodes have no name"
    repeated = next((name for name, count in names.items() if count > 1), None)
    return f"several nodes are named '{repeated}'" if repeated else None


def _foreign_domains(proto: onnx.ModelProto) -> str | None:
    used = {node.domain for graph in onnx_file.graphs(proto.graph) for node in graph.node}
    foreign = {o.domain for o in proto.opset_import} - used - {"", "ai.onnx"}
    return f"it imports the unused domain '{min(foreign)}'" if foreign else None


def _quantizers(proto: onnx.ModelProto) -> int:
    return sum(
        node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for graph in onnx_file.graphs(proto.graph)
        for node in graph.node
    )


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Whether the model has a Q or DQ node."""
    return _quantizers(proto) > 0


def _none_quantized(proto: onnx.ModelProto) -> str | None:
    return None if _quantizers(proto) else "there is no Q or DQ node"


def _some_quantized(proto: onnx.ModelProto) -> str | None:
    count = _quantizers(proto)
    return f"there are {count} Q and DQ nodes already" if count else None


tidy = Condition("nodes in topological order, each with a name of its own", _untidy)
standard_domains = Condition("no imported operator domain is unused", _foreign_domains)
quantized = Condition("at least one Q or DQ node", _none_quantized)
unquantized = Condition("no Q or DQ node", _some_quantized)
