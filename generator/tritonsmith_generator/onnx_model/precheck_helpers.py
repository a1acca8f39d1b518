"""What the checks of an ONNX file look things up with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import onnx
from onnx import TensorProto

from tritonsmith_generator.onnx_model.onnx_file import (
    OnnxFile,
)

# TensorRT 11's parser reads opset 9 to 25 (NVIDIA's documentation of ONNX support).
OLDEST_OPSET, NEWEST_OPSET = 9, 25


# TensorRT takes DOUBLE in and makes FLOAT of it, without saying so.
_DOUBLE = TensorProto.DOUBLE


Check = Callable[[OnnxFile, str], Iterator[str]]


_TYPE_NUMBERS = frozenset(TensorProto.DataType.values())


def _values(file: OnnxFile) -> Iterator[tuple[str, onnx.ValueInfoProto]]:
    graph = file.proto.graph
    weights = {initializer.name for initializer in graph.initializer}
    yield from (("input", v) for v in graph.input if v.name not in weights)
    yield from (("output", v) for v in graph.output)


def _called(node: onnx.NodeProto) -> str:
    name = f"'{node.name}'" if node.name else f"(unnamed, making '{', '.join(node.output)}')"
    return f"node {name} ({node.op_type})"


def _unsorted(file: OnnxFile) -> bool:
    graph = file.proto.graph
    made_later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if any(name in made_later for name in node.input):
            return True
        made_later.difference_update(node.output)
    return False


def _repeated_node_names(file: OnnxFile) -> tuple[str, ...]:
    names = Counter(node.name for node in file.proto.graph.node if node.name)
    return tuple(name for name, count in names.items() if count > 1)


def _one_line(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return text if len(text) <= 300 else text[:297] + "..."
