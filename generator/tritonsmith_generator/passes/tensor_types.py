"""The data type of each tensor of a graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tritonsmith_generator.passes.schema import operator

__all__ = ["Types", "tensor_types"]

# Type numbers by tensor name in one graph and those around it; 0 where the type is unknown.
Types = Mapping[str, int]
NO_TENSOR = -1


def tensor_types(graph: onnx.GraphProto, outer: Types, opset: int) -> dict[str, int]:
    """Return the types of all tensors that can be named in a graph whose types were inferred.

    NO_TENSOR stands for a sequence or an optional, 0 or no entry for an unknown type. Inference
    gives up on a shape that it doesn't know, so types that the operators imply are filled in.
    """
    types = dict(outer)
    for value in (*graph.value_info, *graph.input, *graph.output):
        is_tensor = value.type.HasField("tensor_type") or not value.type.WhichOneof("value")
        types[value.name] = value.type.tensor_type.elem_type if is_tensor else NO_TENSOR
    types.update((tensor.name, tensor.data_type) for tensor in graph.initializer)
    for node in graph.node:
        found = operator(node, opset)
        inputs = [types.get(name, 0) for name in node.input]
        for index, name in enumerate(node.output):
            if found and not types.get(name):
                types[name] = _cast_to(node) or found.output_type(index, inputs)
    return types


def _cast_to(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"), 0)
