"""FP16, BF16 and FP8 in ONNX Runtime as a GPU computes them.

ONNX Runtime's CPU kernels lack BF16, and for FP16 it leaves values in FP32 from one node to the
next where it can, so nothing ever overflows. Here each node computes in FP32 and its result is
rounded. (The order of sums inside a node is not emulated: tensor cores add in FP32, too.)
FP8 Q and DQ nodes run as they are, but would be fused into integer kernels that don't take FP8,
so they are kept apart from what reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes.model import read_model
from tritonsmith_generator.passes.tensor_types import tensor_types

__all__ = ["emulate"]

_FLOAT: int = TensorProto.FLOAT
_LOW: frozenset[int] = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT16})
_FP8: frozenset[int] = frozenset({TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2})

# Their type is an attribute's or a body's, and they compute nothing: they stay as they are.
_UNTOUCHED = frozenset({"Cast", "CastLike", "Constant", "EyeLike"})


def emulate(model: Path, workdir: Path) -> Path:
    """Write a model that ONNX Runtime can run and that answers like ``model`` on a GPU.

    Inputs and outputs stay as they are. Returns ``model`` itself where it has no such type.
    """
    work = read_model(model)
    work.proto = onnx.shape_inference.infer_shapes(work.proto)
    all_types: dict[str, int] = {}
    found = False
    for graph in onnx_file.graphs(work.graph):
        all_types = tensor_types(graph, all_types, work.opset)
        found |= not (_LOW | _FP8).isdisjoint(all_types.values())
    if not found:
        return model
    _emulate(work.graph, {}, work.opset)
    return work.write(workdir / "emulated.onnx")


def _emulate(graph: onnx.GraphProto, outer: Mapping[str, int], opset: int) -> None:
    """Change a graph and its bodies. A tensor ``t`` in low precision is read as ``t__fp32``."""
    types = tensor_types(graph, outer, opset)
    stored = [t.name for t in graph.initializer] + [v.name for v in graph.input]
    nodes = [_widening(name) for name in stored if types.get(name) in _LOW]
    for node in graph.node:
        nodes += _emulated(node, types, opset)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]


def _emulated(
    node: onnx.NodeProto, types: Mapping[str, int], opset: int
) -> Iterator[onnx.NodeProto]:
    """Yield the node, computing in FP32, with what rounds its results."""
    bodies = [g for a in node.attribute for g in (a.g, *a.graphs) if g.node]
    for body in bodies:
        _emulate(body, types, opset)
    low = {name: types[name] for name in node.output if types.get(name) in _LOW}
    if not bodies and node.op_type not in _UNTOUCHED:
        yield from _rounded(node, types, low)
    else:
        yield node
    for name in low:
        yield _widening(name)


def _rounded(
    node: onnx.NodeProto, types: Mapping[str, int], low: Mapping[str, int]
) -> Iterator[onnx.NodeProto]:
    for index, name in enumerate(node.input):
        if types.get(name) in _LOW:
            node.input[index] = f"{name}__fp32"
    for index, name in enumerate(node.output):
        if name in low:
            node.output[index] = f"{name}__exact"
    for attribute in node.attribute:
        _widen(attribute)
    yield node
    if node.op_type == "DequantizeLinear" and types.get(node.input[0]) in _FP8:
        yield from _apart(node)
    for name, kind in low.items():
        yield helper.make_node("Cast", [f"{name}__exact"], [name], to=kind)


def _widening(name: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [f"{name}__fp32"], to=_FLOAT)


def _apart(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Two negations behind a DQ: exact, and in no pattern that is fused."""
    name = node.output[0]
    node.output[0] = f"{name}__dequantized"
    return [
        helper.make_node("Neg", [node.output[0]], [f"{name}__negated"]),
        helper.make_node("Neg", [f"{name}__negated"], [name]),
    ]


def _widen(attribute: AttributeProto) -> None:
    """Let an attribute that holds a value or names a type of low precision say FP32."""
    if attribute.HasField("t") and attribute.t.data_type in _LOW:
        array = numpy_helper.to_array(attribute.t).astype("float32")
        attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    if attribute.name in ("dtype", "output_dtype") and attribute.i in _LOW:
        attribute.i = _FLOAT
