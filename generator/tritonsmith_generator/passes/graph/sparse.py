"""2:4 structured sparsity: of every four weights along the input channel two become zero.

TensorRT computes such layers on sparse tensor cores when ``sparse_weights`` is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Array, Condition, PassResult
from tritonsmith_generator.passes.model import Model, read_model
from tritonsmith_generator.passes.node_selection import check_patterns, matches
from tritonsmith_generator.passes.report import Stopwatch

__all__ = ["Sparse", "is_sparse", "prune"]


@dataclass(frozen=True)
class Sparse:
    """Prune the weights of Conv, Gemm and MatMul. ``keep``: nodes whose weights stay dense.

    Layers whose input channels are no multiple of 4 stay dense, too. The model gets less
    accurate: it has to be trained for sparsity, or the accuracy gate will tell.
    """

    keep: tuple[str, ...] = ()
    name: str = "sparse"
    requires: tuple[Condition, ...] = (conditions.tidy, conditions.unquantized)
    ensures: tuple[Condition, ...] = (conditions.tidy,)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        watch = Stopwatch(self.name, model)
        work = read_model(model)
        check_patterns(work.proto, self.keep)
        axes, dense = _plan(work, self.keep)
        if not axes:
            reasons = "; ".join(f"{n}: {why}" for n, why in list(dense.items())[:5])
            raise InputError(f"nothing can be pruned to 2:4 sparsity: {reasons or 'no weights'}")
        for tensor in work.graph.initializer:
            if tensor.name in axes:
                work.replace(tensor, _pruned(work.values(tensor), axes[tensor.name]))
        result = work.write(workdir / "model.onnx")
        _prove(result, axes)
        note = f"{len(axes)} weights were pruned; each group of 4 was read back and holds 2 zeros"
        return watch.result(result, (note,), dense)


def _plan(work: Model, keep: tuple[str, ...]) -> tuple[dict[str, int], dict[str, str]]:
    """Return each pruned weight's input channel axis, and the nodes left dense with reasons."""
    tensors = {t.name: t for t in work.graph.initializer if t.data_type == TensorProto.FLOAT}
    readers: dict[str, list[tuple[onnx.NodeProto, int | None]]] = {}
    for node in work.graph.node:
        for index, name in enumerate(node.input):
            if name in tensors:
                axis = _input_channel(node, tensors[name]) if index == 1 else None
                readers.setdefault(name, []).append((node, axis))
    axes: dict[str, int] = {}
    dense: dict[str, str] = {}
    for name, uses in readers.items():
        layers = [(node, axis) for node, axis in uses if axis is not None]
        reason = _why_dense(tensors[name], uses, keep) if layers else None
        if layers and reason is None:
            axes[name] = layers[0][1] or 0
        dense.update({n.name: reason for n, _ in layers if reason})
    return axes, dense


def _input_channel(node: onnx.NodeProto, weight: TensorProto) -> int | None:
    """Return the weight's axis that a layer's sums run over; None for any other node."""
    if node.op_type == "Conv":
        return 1
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return 1 if transposed else 0
    if node.op_type == "MatMul" and len(weight.dims) >= 2:
        return len(weight.dims) - 2
    return None


def _why_dense(
    weight: TensorProto, uses: list[tuple[onnx.NodeProto, int | None]], keep: tuple[str, ...]
) -> str | None:
    axes = {axis for _, axis in uses}
    if any(matches(node, keep) for node, _ in uses):
        return "asked for"
    if len(axes) > 1:
        return f"'{weight.name}' is used in other ways, too"
    channels = weight.dims[next(iter(axes)) or 0]
    return f"{channels} input channels are no multiple of 4" if channels % 4 else None


def _pruned(load: Callable[[], Array], axis: int) -> Callable[[], Array]:
    return lambda: prune(load(), axis)


def prune(weight: Array, axis: int) -> Array:
    """Set the two smallest of every four values along an axis to zero."""
    groups = _groups(weight, axis).copy()
    smallest = np.argsort(np.abs(groups), axis=-1, kind="stable")[..., :2]
    np.put_along_axis(groups, smallest, 0, axis=-1)
    moved = groups.reshape(np.moveaxis(weight, axis, -1).shape)
    return np.ascontiguousarray(np.moveaxis(moved, -1, axis))


def is_sparse(weight: Array, axis: int) -> bool:
    """Whether every four values along an axis hold at most two that aren't zero."""
    return bool((np.count_nonzero(_groups(weight, axis), axis=-1) <= 2).all())


def _groups(weight: Array, axis: int) -> Array:
    last = np.moveaxis(weight, axis, -1)
    return np.ascontiguousarray(last).reshape(*last.shape[:-1], -1, 4)


def _prove(model: Path, axes: dict[str, int]) -> None:
    """Read the written weights back: what TensorRT will see is what counts."""
    work = read_model(model)
    for name in _dense_weights(work, axes):
        raise InputError(f"weight '{name}' is not 2:4 sparse in {model}: the file was changed")


def _dense_weights(work: Model, axes: dict[str, int]) -> Iterator[str]:
    for tensor in work.graph.initializer:
        if tensor.name in axes and not is_sparse(work.value(tensor), axes[tensor.name]):
            yield tensor.name
