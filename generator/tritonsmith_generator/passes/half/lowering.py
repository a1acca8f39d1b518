"""Lower a graph from FP32 to FP16 or BF16: casts where it enters and leaves, weights converted.

Each graph is one scope: the main graph and the bodies of If, Loop and Scan alike keep their own
inputs and outputs in FP32, and everything between is lowered. A body finds the tensors of the
graphs around it by their name there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes.base import Array
from tritonsmith_generator.passes.half.recurrent import kept_around
from tritonsmith_generator.passes.half.selection import HalfType, exact_nodes, reason_to_keep
from tritonsmith_generator.passes.half.values import DTYPES, Fit, fit, to_half
from tritonsmith_generator.passes.model import Model
from tritonsmith_generator.passes.scales import with_their_readers
from tritonsmith_generator.passes.schema import STANDARD, operator
from tritonsmith_generator.passes.tensor_types import Types, tensor_types

__all__ = ["Lowered", "lower"]

FLOAT: int = TensorProto.FLOAT


@dataclass
class Lowered:
    """What happened: nodes kept in FP32 with the reason, constants clipped or raised, casts."""

    kept: dict[str, str] = field(default_factory=dict)
    clipped: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    casts: int = 0


def lower(model: Model, half: HalfType, keep: Sequence[str]) -> Lowered:
    """Lower the model in place. ``keep`` are patterns of nodes that stay in FP32.

    The model has to be tidy and without local functions.
    """
    model.proto = onnx.shape_inference.infer_shapes(model.proto)
    job = _Job(model, half, keep)
    main = _Scope(job, model.graph, None)
    main.convert()
    main.settle_outputs()
    main.drop_unused_constants()
    # bfloat16 and half constants as new models have them; readers refuse nothing older either.
    model.proto.ir_version = max(model.proto.ir_version, 10)
    return job.done


class _Job:
    """What all scopes share."""

    def __init__(self, model: Model, half: HalfType, keep: Sequence[str]) -> None:
        self.model, self.half, self.keep = model, half, keep
        self.opset = model.opset
        self.done = Lowered()
        self._names = {
            name
            for graph in onnx_file.graphs(model.graph)
            for node in graph.node
            for name in (*node.input, *node.output, node.name)
        } | {value.name for graph in onnx_file.graphs(model.graph) for value in graph.input}
        self._names |= {tensor.name for tensor in onnx_file.tensors(model.graph)}

    def fresh(self, stem: str) -> str:
        """Return a name that no tensor and no node has."""
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name


@dataclass(frozen=True)
class _Constant:
    """An FP32 initializer: how its values are read, and how they fit."""

    dims: tuple[int, ...]
    load: Callable[[], Array]
    fit: Fit


class _Scope:
    """One graph being lowered."""

    def __init__(self, job: _Job, graph: onnx.GraphProto, outer: _Scope | None) -> None:
        self.job, self.graph, self.outer = job, graph, outer
        self.types: Types = tensor_types(graph, outer.types if outer else {}, job.opset)
        self._lift_constants()
        self.constants = {
            t.name: self._constant(t) for t in graph.initializer if t.data_type == FLOAT
        }
        self.exact = exact_nodes(graph, self.types, frozenset(self.constants))
        self.lossy = with_their_readers(graph.node, self._loses_scale)
        self.around: dict[str, str] = {}
        # Under which name a tensor lies in which type: {("x", FLOAT): "x", ("x", FP16): "x_fp16"}.
        self.held: dict[tuple[str, int], str] = {}
        self._kinds = (FLOAT, job.half.onnx)
        self.nodes: list[onnx.NodeProto] = []
        for value in graph.input:
            self.held[value.name, self.types.get(value.name, 0)] = value.name

    # --- reading tensors -----------------------------------------------------------------

    def get(self, name: str, wanted: int) -> str:
        """Return the name under which the tensor can be read in the wanted type here."""
        maker = self._maker(name)
        if maker is None:
            return name
        if name in maker.constants:
            return maker.constant(name, wanted)
        for scope in self._outwards():
            if found := scope.held.get((name, wanted)):
                return found
        source = next(found for kind in self._kinds if (found := maker.held.get((name, kind))))
        self.held[name, wanted] = self._cast(source, name, wanted)
        return self.held[name, wanted]

    def stored(self, name: str) -> str:
        """Return the name of the tensor in whichever type it was made."""
        maker = self._maker(name)
        if maker is None:
            return name
        if name in maker.constants:
            return maker.constant(name, FLOAT)
        return next(found for kind in self._kinds if (found := maker.held.get((name, kind))))

    def _outwards(self) -> Iterator[_Scope]:
        """Yield this graph, the one around it, and so on."""
        scope: _Scope | None = self
        while scope:
            yield scope
            scope = scope.outer

    def _maker(self, name: str) -> _Scope | None:
        """Return the outermost graph that knows the tensor: the others have casts of it."""
        known = [
            scope
            for scope in self._outwards()
            if name in scope.constants or any((name, kind) in scope.held for kind in self._kinds)
        ]
        return known[-1] if known else None

    def constant(self, name: str, wanted: int) -> str:
        """Return the name of an initializer of this graph in the wanted type, made if need be."""
        if (name, wanted) not in self.held:
            self.held[name, wanted] = name if wanted == FLOAT else self._lowered_constant(name)
        return self.held[name, wanted]

    def _lowered_constant(self, name: str) -> str:
        constant, half = self.constants[name], self.job.half
        low = self.job.fresh(f"{name}_{half.name.lower()}")
        note = {Fit.CLIPPED: self.job.done.clipped, Fit.RAISED: self.job.done.raised}
        note.get(constant.fit, []).append(name)

        def load() -> Array:
            return to_half(constant.load(), half)

        if self.outer:
            self.graph.initializer.append(numpy_helper.from_array(load(), low))
        else:
            self.job.model.add(low, half.onnx, constant.dims, load)
        return low

    def _cast(self, source: str, stem: str, to: int) -> str:
        suffix = "fp32" if to == FLOAT else self.job.half.name.lower()
        name = self.job.fresh(f"{stem}_{suffix}")
        self._add_cast(source, name, to)
        return name

    def _add_cast(self, source: str, name: str, to: int) -> None:
        node = helper.make_node("Cast", [source], [name], self.job.fresh(f"Cast_{name}"), to=to)
        self.nodes.append(node)
        self.job.done.casts += 1

    # --- constants -----------------------------------------------------------------------

    def _lift_constants(self) -> None:
        """Make initializers of the FP32 Constant nodes: a constant is then one thing."""
        for node in [
            n for n in self.graph.node if n.op_type == "Constant" and n.domain in STANDARD
        ]:
            value = _float_value(node)
            if value is not None and node.output[0] not in {o.name for o in self.graph.output}:
                self.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
                self.graph.node.remove(node)

    def _constant(self, tensor: TensorProto) -> _Constant:
        if self.outer or not onnx_file.external(tensor):
            array = numpy_helper.to_array(tensor)
            return _Constant(tuple(tensor.dims), lambda: array, fit(array, self.job.half))
        load = self.job.model.weights[tensor.name]
        return _Constant(tuple(tensor.dims), load, fit(load(), self.job.half))

    def drop_unused_constants(self) -> None:
        """Remove the FP32 initializers that nothing reads in FP32 any more."""
        outputs = {value.name for value in self.graph.output}
        for name in [n for n in self.constants if (n, FLOAT) not in self.held]:
            if name not in outputs:
                tensor = next(t for t in self.graph.initializer if t.name == name)
                self.graph.initializer.remove(tensor)
                self.job.model.weights.pop(name, None)

    # --- nodes ---------------------------------------------------------------------------

    def convert(self) -> None:
        """Lower every node, in order."""
        self.around = kept_around(self.graph, self._reason_to_keep)
        for node in list(self.graph.node):
            self._convert_bodies(node)
            floats = any(self.types.get(n) == FLOAT for n in (*node.input, *node.output))
            reason = self._reason_to_keep(node) if floats else None
            if reason:
                self.job.done.kept[node.name] = reason
            (self._keep if reason or not floats else self._lower)(node)

    def _reason_to_keep(self, node: onnx.NodeProto) -> str | None:
        job = self.job
        if reason := reason_to_keep(node, self.types, job.half, job.opset, job.keep):
            return reason
        if reason := self.around.get(node.output[0]):
            return reason
        if node.output[0] in self.exact:
            return "positions are computed in FP32"
        if scale := self.lossy.get(node.output[0]):
            return f"the scale '{scale}' is out of {job.half.name}'s range"
        for name in node.input:
            constant = self._find_constant(name)
            if constant and constant.fit is Fit.TOO_LARGE:
                return f"'{name}' holds values beyond {job.half.largest:g}"
        return None

    def _find_constant(self, name: str) -> _Constant | None:
        maker = self._maker(name)
        return maker.constants.get(name) if maker else None

    def _loses_scale(self, node: onnx.NodeProto) -> bool:
        """Whether a scale is off by more than 1 % in half precision: too small or too large."""
        constant = self.constants.get(node.input[1])
        if constant is None:
            return False
        scale = np.asarray(constant.load(), np.float32)
        with np.errstate(over="ignore"):
            low = scale.astype(DTYPES[self.job.half]).astype(np.float32)
        return bool((np.abs(low - scale) > 0.01 * np.abs(scale)).any())

    def _convert_bodies(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            is_body = attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
            for body in (attribute.g, *attribute.graphs) if is_body else ():
                scope = _Scope(self.job, body, self)
                scope.convert()
                scope.settle_outputs()
                scope.drop_unused_constants()

    def _keep(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            if self.types.get(name) == FLOAT:
                node.input[index] = self.get(name, FLOAT)
        self.nodes.append(node)
        for name in node.output:
            if self.types.get(name) == FLOAT:
                self.held[name, FLOAT] = name

    def _lower(self, node: onnx.NodeProto) -> None:
        half, found = self.job.half, operator(node, self.job.opset)
        assert found is not None  # reason_to_keep keeps nodes without a schema
        for index, name in enumerate(node.input):
            if self.types.get(name) != FLOAT:
                continue
            if node.op_type in _ANY_TYPE:
                node.input[index] = self.stored(name)
            else:
                low = found.input_takes(index, half.schema)
                node.input[index] = self.get(name, half.onnx if low else FLOAT)
        if any(self.types.get(name) == FLOAT for name in node.output):
            _retype_attributes(node, half)
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if self.types.get(name) == FLOAT:
                low = found.output_takes(index, half.schema)
                self.held[name, half.onnx if low else FLOAT] = name

    def settle_outputs(self) -> None:
        """Give each FP32 output of the graph its FP32 value under its own name."""
        made = {name for node in self.nodes for name in node.output}
        for value in self.graph.output:
            name = value.name
            if self.types.get(name) != FLOAT or self.held.get((name, FLOAT)) == name:
                continue
            if name in made:
                self._rename(name, self.job.fresh(f"{name}_{self.job.half.name.lower()}"))
                self._add_cast(self.held[name, self.job.half.onnx], name, FLOAT)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        del self.graph.value_info[:]

    def _rename(self, old: str, new: str) -> None:
        """Rename a lowered tensor so that its name is free for the FP32 one."""
        for node in self.nodes:
            _replace(node, old, new)
        self.held[old, self.job.half.onnx] = new


# These take any type and give none on: a cast before them would be for nothing.
_ANY_TYPE = frozenset({"Cast", "Shape", "Size"})


def _replace(node: onnx.NodeProto, old: str, new: str) -> None:
    """Replace a tensor's name in a node and in its bodies."""
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name == old:
                names[index] = new
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                _replace(inner, old, new)


def _float_value(node: onnx.NodeProto) -> Array | None:
    """Return the value of a Constant node if it is FP32."""
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == FLOAT:
            return numpy_helper.to_array(attribute.t)
        if attribute.name == "value_float":
            return np.array(attribute.f, np.float32)
        if attribute.name == "value_floats":
            return np.array(attribute.floats, np.float32)
    return None


def _retype_attributes(node: onnx.NodeProto, half: HalfType) -> None:
    """Set the attributes that name the type of a FLOAT output, or hold its value."""
    if node.op_type == "ConstantOfShape":
        value = next((numpy_helper.to_array(a.t) for a in node.attribute), np.zeros(1, np.float32))
        del node.attribute[:]
        tensor = numpy_helper.from_array(to_half(value, half))
        node.attribute.append(helper.make_attribute("value", tensor))
    for attribute in node.attribute:
        if attribute.name in ("to", "output_dtype") and attribute.i == FLOAT:
            attribute.i = half.onnx
