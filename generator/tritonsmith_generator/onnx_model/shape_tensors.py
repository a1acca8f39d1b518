"""Inputs that say shapes to the model by their values, such as the target of a Reshape.

TensorRT has to know the smallest and largest values before it builds, and no model can be asked
anything with random ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.profiles import ProfileSet, ShapeRange
from tritonsmith_generator.onnx_model.signature import Signature, Tensor

__all__ = ["shape_inputs", "with_shape_tensors"]

# Which operands say a shape, by operator.
_OPERANDS: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}

# What shapes are computed with.
_ARITHMETIC = frozenset(
    {
        *("Abs", "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Max", "Min", "Mod", "Mul"),
        *("Neg", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Slice"),
        *("Squeeze", "Sub", "Unsqueeze", "Where"),
    }
)


def shape_inputs(graph: onnx.GraphProto, signature: Signature) -> dict[str, onnx.NodeProto]:
    """Give the inputs whose values say shapes, each with a node that takes its shape from them."""
    able = {t.name for t in signature.inputs if t.dtype.numpy.kind in "iu" and len(t.shape) < 2}
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        todo = [node.input[i] for i in _OPERANDS.get(node.op_type, ()) if i < len(node.input)]
        seen: set[str] = set()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in able:
                found.setdefault(name, node)
            maker = makers.get(name)
            if maker is not None and maker.op_type in _ARITHMETIC:
                todo.extend(maker.input)
    return found


def with_shape_tensors(
    profile_set: ProfileSet,
    graph: onnx.GraphProto,
    signature: Signature,
    samples: Sequence[Mapping[str, Any]],
) -> ProfileSet:
    """Return the profile set with values for every shape tensor: the spec's, else the samples'.

    Raises InputError, naming input, node and what to write, where neither gives them.
    """
    needed = shape_inputs(graph, signature)
    if not needed:
        return profile_set
    seen = {name: [np.asarray(sample[name]).reshape(-1) for sample in samples] for name in needed}
    derived = {name: _range(arrays) for name, arrays in seen.items() if arrays}
    given = profile_set.values or ({},) * len(profile_set.profiles)
    values = tuple({**derived, **one} for one in given)
    for number, one in enumerate(values):
        for name in needed:
            if name not in one:
                raise InputError(_missing(number, signature.input(name), needed[name]))
    return replace(profile_set, values=values)


def _range(arrays: Sequence[Any]) -> ShapeRange:
    """Over all samples; the first one is the usual one."""
    low, high = np.min(arrays, axis=0), np.max(arrays, axis=0)
    return ShapeRange(*(tuple(map(int, end)) for end in (low, arrays[0], high)))


def _missing(number: int, tensor: Tensor, node: onnx.NodeProto) -> str:
    count = tensor.dims[0] if tensor.dims else 1
    ends = ", ".join(f"{end}: [{', '.join(['...'] * count)}]" for end in ("min", "opt", "max"))
    return (
        f"the values of the input {tensor} say shapes to node '{node.name}' ({node.op_type}), and "
        f"profile {number} does not know them: give shapes.{tensor.name}.values ({{{ends}}}), or "
        "accuracy.samples (--samples) to take them from, or make them constants in the model"
    )
