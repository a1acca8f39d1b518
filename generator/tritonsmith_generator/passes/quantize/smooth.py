"""SmoothQuant: outliers of activations are moved into the weights before INT8.

In transformers a few channels of an activation are far larger than the others, and one step for
all of them leaves the others hardly a level. Dividing each channel by a factor, and multiplying
the weight's row with it, changes no answer and evens both out (Xiao et al., 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.onnx_file import signature_of
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.activations import tensors_of
from tritonsmith_generator.passes.base import Array, Condition, PassResult
from tritonsmith_generator.passes.model import Model, read_model
from tritonsmith_generator.passes.node_selection import ASKED_FOR, matches
from tritonsmith_generator.passes.report import Stopwatch
from tritonsmith_generator.passes.samples import Samples

__all__ = ["Smooth"]

# A channel that is always zero, or a factor beyond what FP16 holds, would help nobody.
_SMALLEST, _LARGEST = 1e-4, 1e4


@dataclass(frozen=True)
class Smooth:
    """Even out what Gemm and MatMul read. ``keep`` as in Int8.

    ``strength`` is how much moves: 0 evens out the weights, 1 the activations. ``most`` is how
    many samples are looked at.
    """

    samples: Samples
    keep: tuple[str, ...] = ()
    strength: float = 0.5
    most: int | None = None
    name: str = "smooth"
    requires: tuple[Condition, ...] = (conditions.tidy, conditions.unquantized)
    ensures: tuple[Condition, ...] = (conditions.tidy,)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        watch = Stopwatch(self.name, model)
        work = read_model(model)
        kept = {n.name: ASKED_FOR for n in work.graph.node if matches(n, self.keep)}
        readers = _readers(work, kept)
        if not readers:
            return watch.result(model, ("there is no Gemm or MatMul with a constant weight",))
        largest = self._largest(model, list(readers), workdir)
        for name, layers in readers.items():
            rows = np.max([_rows(work, layer) for layer in layers], axis=0)
            _divide(work, name, layers, _factor(largest[name], rows, self.strength))
        work.drop_unused_weights()
        count = sum(map(len, readers.values()))
        note = f"{len(readers)} activations were evened out for {count} layers"
        return watch.result(work.write(workdir / "model.onnx"), (note,), kept)

    def _largest(self, model: Path, names: Sequence[str], workdir: Path) -> dict[str, Array]:
        """Return the largest absolute value of each channel (the last axis)."""
        found: dict[str, Array] = {}
        signature = signature_of(onnx_file.read(model).proto)
        with tensors_of(model, names, workdir) as ask:
            for batch in self.samples.read(signature, self.most):
                for name, values in ask(batch).items():
                    one = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0, initial=0.0)
                    found[name] = np.maximum(found.get(name, one), one)
        return found


def _readers(work: Model, kept: Collection[str]) -> dict[str, list[onnx.NodeProto]]:
    """Return the layers with a constant weight of two axes, by what they read."""
    stored = {t.name: t for t in work.graph.initializer if t.data_type == TensorProto.FLOAT}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in work.graph.node:
        weight = stored.get(node.input[1]) if node.op_type in ("Gemm", "MatMul") else None
        suits = weight is not None and len(weight.dims) == 2 and node.input[0] not in stored
        if suits and node.name not in kept and not _flag(node, "transA"):
            readers.setdefault(node.input[0], []).append(node)
    return readers


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _rows(work: Model, node: onnx.NodeProto) -> Array:
    """Return the largest absolute weight for each channel that is read."""
    tensor = next(t for t in work.graph.initializer if t.name == node.input[1])
    largest: Array = np.abs(work.value(tensor)).max(axis=1 if not _flag(node, "transB") else 0)
    return largest


def _factor(activations: Array, rows: Array, strength: float) -> Array:
    """Return what each channel is divided by."""
    least = np.float32(_SMALLEST)
    factor = np.maximum(activations, least) ** strength / np.maximum(rows, least) ** (1 - strength)
    return np.asarray(np.clip(factor, _SMALLEST, _LARGEST), np.float32)


def _divide(work: Model, name: str, layers: Sequence[onnx.NodeProto], factor: Array) -> None:
    """Put a division before the layers (a Mul, which is fused), and multiply their weights."""
    divisor, smoothed = f"{name}_smoothing", f"{name}_smoothed"
    inverse = (1 / factor).astype(np.float32)
    work.add(divisor, TensorProto.FLOAT, inverse.shape, lambda: inverse)
    node = helper.make_node("Mul", [name, divisor], [smoothed], f"Mul_{smoothed}")
    work.graph.node.insert(list(work.graph.node).index(layers[0]), node)
    for layer in layers:
        tensor = next(t for t in work.graph.initializer if t.name == layer.input[1])
        along = factor if _flag(layer, "transB") else factor[:, None]
        weight = f"{tensor.name}_for_{layer.name}"
        work.add(
            weight, TensorProto.FLOAT, tuple(tensor.dims), _product(work.values(tensor), along)
        )
        layer.input[0], layer.input[1] = smoothed, weight


def _product(load: Callable[[], Array], factor: Array) -> Callable[[], Array]:
    return lambda: np.asarray(load() * factor, np.float32)
