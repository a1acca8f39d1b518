"""Scales of Q and DQ nodes that half precision cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx

from tritonsmith_generator.passes.base import Array
from tritonsmith_generator.passes.model import Model

__all__ = ["QUANTIZERS", "SMALLEST_SCALE", "raise_tiny_scales", "with_their_readers"]

# The smallest scale that FP16 (whose numbers grow coarse below 6e-5) holds within 1 %.
SMALLEST_SCALE = 2.0**-18

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def raise_tiny_scales(model: Model) -> int:
    """Raise each scale below SMALLEST_SCALE to it, its weights following. How many there were.

    The values concerned are below 5e-4 in size and end up at most 2e-6 from where they were.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    users: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        if node.op_type not in QUANTIZERS or node.input[1] not in tensors:
            continue
        # Behind a DQ lie quantized weights; a Q computes with the new scale by itself.
        if node.op_type == "DequantizeLinear" or node.input[1] not in users:
            users[node.input[1]] = node
    raised = 0
    for name, node in users.items():
        scale = np.asarray(model.value(tensors[name]))
        tiny = scale < SMALLEST_SCALE
        if not tiny.any():
            continue
        raised += int(tiny.sum())
        new = np.maximum(scale, np.array(SMALLEST_SCALE, scale.dtype))
        model.replace(tensors[name], _constant(new))
        stored = tensors.get(node.input[0])
        if stored is not None and node.op_type == "DequantizeLinear":
            follow = _requantized(model.value(stored), scale / new, _axis(node))
            model.replace(stored, _constant(follow))
    return raised


def _requantized(values: Array, factor: Array, axis: int) -> Array:
    shape = [1] * values.ndim
    if factor.size > 1:
        shape[axis] = factor.size
    rounded: Array = np.rint(values * factor.reshape(shape)).astype(values.dtype)
    return rounded


def _constant(array: Array) -> Callable[[], Array]:
    return lambda: array


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def with_their_readers(
    nodes: Iterable[onnx.NodeProto], is_lossy: Callable[[onnx.NodeProto], bool]
) -> dict[str, str]:
    """First outputs of Q and DQ nodes with a lossy scale, of what reads them and of its other DQs.

    TensorRT wants the scales of all operands of a layer in one type, so all of them stay in FP32.
    Returns the name of the lossy scale for each.
    """
    nodes = list(nodes)
    maker = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, str] = {}
    todo = [(n, n.input[1]) for n in nodes if n.op_type in QUANTIZERS and is_lossy(n)]
    while todo:
        node, scale = todo.pop()
        if node.output[0] in found:
            continue
        found[node.output[0]] = scale
        near = [maker[name] for name in node.input if name in maker]
        if node.op_type == "DequantizeLinear":
            todo += [(reader, scale) for reader in readers.get(node.output[0], ())]
            todo += [(other, scale) for other in near if other.op_type in QUANTIZERS]
        elif node.op_type == "QuantizeLinear":
            todo += [(reader, scale) for reader in readers.get(node.output[0], ())]
        else:
            todo += [(other, scale) for other in near if other.op_type == "DequantizeLinear"]
    return found
