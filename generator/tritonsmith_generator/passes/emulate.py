"""BF16 and FP8 in ONNX Runtime, whose CPU kernels lack them.

BF16: FP32 values rounded after each node. The order of sums inside a node is not emulated; its
inputs, weights and outputs are. FP8: the Q and DQ nodes run as they are, but ONNX Runtime would
fuse them into integer kernels that don't take FP8, so they are kept apart from what reads them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tritonsmith_generator import onnxfile
from tritonsmith_generator.passes import weights
from tritonsmith_generator.passes.base import Array
from tritonsmith_generator.passes.selection import tensor_types

__all__ = ["emulate"]

FLOAT: int = TensorProto.FLOAT
BFLOAT16: int = TensorProto.BFLOAT16
_FP8 = frozenset({TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2})


def emulate(model: Path, workdir: Path) -> Path:
    """Write a model that ONNX Runtime can run and that answers like ``model``.

    Inputs and outputs keep their names; those in BF16 become FP32. Returns ``model`` itself where
    it has neither BF16 nor FP8.
    """
    work = weights.read(model)
    work.proto = onnx.shape_inference.infer_shapes(work.proto)
    types: dict[str, int] = {}
    found = False
    for graph in onnxfile.graphs(work.graph):
        types = tensor_types(graph, types, work.opset)
        found |= _emulate(graph, types, work)
    return work.write(workdir / "emulated.onnx") if found else model


def _emulate(graph: onnx.GraphProto, types: dict[str, int], work: weights.Model) -> bool:
    """Change one graph, not its bodies. Whether there was any BF16 or FP8."""
    fp8 = {name for name, kind in types.items() if kind in _FP8}
    low = {name for name, kind in types.items() if kind == BFLOAT16}
    for tensor in graph.initializer:
        if tensor.data_type == BFLOAT16:
            _widen(tensor, work)
    for value in (*graph.input, *graph.output):
        if value.name in low:
            value.type.tensor_type.elem_type = FLOAT
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        _widen_attributes(node)
        nodes.append(node)
        if node.op_type == "DequantizeLinear" and node.input[0] in fp8:
            nodes += _apart(node)
        for index, name in enumerate(node.output):
            if name in low:
                node.output[index] = f"{name}__exact"
                rounded = f"{name}__bf16"
                nodes += [
                    helper.make_node("Cast", [node.output[index]], [rounded], to=BFLOAT16),
                    helper.make_node("Cast", [rounded], [name], to=FLOAT),
                ]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]
    return bool(low or fp8)


def _apart(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Two negations behind a DQ: exact, and in no pattern that is fused."""
    name = node.output[0]
    node.output[0] = f"{name}__dequantized"
    return [
        helper.make_node("Neg", [node.output[0]], [f"{name}__negated"]),
        helper.make_node("Neg", [f"{name}__negated"], [name]),
    ]


def _widen(tensor: TensorProto, work: weights.Model) -> None:
    if load := work.weights.get(tensor.name):
        tensor.data_type = FLOAT
        work.weights[tensor.name] = lambda: _fp32(load())
    else:
        tensor.CopyFrom(numpy_helper.from_array(_fp32(numpy_helper.to_array(tensor)), tensor.name))


def _fp32(array: Array) -> Array:
    wide: Array = array.astype(np.float32)
    return wide


def _widen_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.data_type == BFLOAT16:
            array = _fp32(numpy_helper.to_array(attribute.t))
            attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
        if attribute.name in ("to", "output_dtype") and attribute.i == BFLOAT16:
            attribute.i = FLOAT
