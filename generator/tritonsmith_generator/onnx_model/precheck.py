"""What is wrong with an ONNX model, in words, before any time is spent on it.

The checks run in groups: a later group needs what an earlier one has made sure of, so the
message names the cause and not what follows from it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from onnx import TensorProto

from tritonsmith_client import dtypes
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.onnx_file import (
    OnnxFile,
    external,
    external_entry,
    graphs,
    location,
    read,
    repeated_node_names,
    signature_of,
    tensors,
    unsorted,
    values,
)
from tritonsmith_generator.onnx_model.precheck_warnings import warnings_of
from tritonsmith_generator.onnx_model.signature import Signature

__all__ = ["Checked", "precheck"]

# The newest that TensorRT 11's parser reads (NVIDIA's documentation of ONNX support).
_NEWEST_OPSET = 25
_SMALL = 1024  # elements
_TYPE_NUMBERS = frozenset(TensorProto.DataType.values())
_Check = Callable[[OnnxFile, str], Iterator[str]]


@dataclass(frozen=True)
class Checked:
    """A model that passed: its file, its signature, and what its user should know.

    ``untidy`` says that nodes must be sorted or renamed before others read the file.
    """

    file: OnnxFile
    signature: Signature
    warnings: tuple[str, ...]
    untidy: bool


def precheck(path: Path, target: str) -> Checked:
    """Check a model for a target. Raises InputError naming all problems of the first bad group."""
    file = read(path)
    for group in _GROUPS:
        problems = tuple(dict.fromkeys(p for check in group for p in check(file, target)))
        if problems:
            lines = problems if len(problems) == 1 else ("", *(f"  {p}" for p in problems))
            raise InputError(f"{path}: " + "\n".join(lines))
    return Checked(
        file,
        signature_of(file.proto),
        warnings=tuple(warnings_of(file, target)),
        untidy=unsorted(file) or bool(repeated_node_names(file)),
    )


# --- problems ------------------------------------------------------------------------------


def _versions(file: OnnxFile, target: str) -> Iterator[str]:
    if file.proto.ir_version > onnx.IR_VERSION:
        yield (
            f"IR version {file.proto.ir_version} is newer than the installed onnx "
            f"{onnx.__version__} reads ({onnx.IR_VERSION}): upgrade onnx or export again"
        )
    if not file.opset and _needs_opset(file):
        yield "the model declares no opset of the standard operators (ai.onnx): export it again"
    elif file.opset > _NEWEST_OPSET:
        yield (
            f"opset {file.opset} is newer than {_NEWEST_OPSET}, the newest that TensorRT and "
            "ONNX Runtime take: export again with a lower opset_version"
        )


def _needs_opset(file: OnnxFile) -> bool:
    """Not a model of other domains only, such as the classical ones of ai.onnx.ml."""
    domains = {node.domain for graph in graphs(file.proto.graph) for node in graph.node}
    return bool(domains & {"", "ai.onnx"})


def _has_outputs(file: OnnxFile, target: str) -> Iterator[str]:
    if not file.proto.graph.output:
        yield "the graph has no outputs, so there is nothing to serve"


def _names(file: OnnxFile, target: str) -> Iterator[str]:
    graph = file.proto.graph
    for name, count in Counter(v.name for v in graph.input).items():
        if count > 1:
            yield f"{count} graph inputs are named '{name}': names must differ"
    made = Counter(name for node in graph.node for name in node.output if name)
    given = {v.name for v in graph.input} | {i.name for i in graph.initializer}
    given |= {i.values.name for i in graph.sparse_initializer}
    for name, count in made.items():
        if count > 1 or name in given:
            yield f"the tensor '{name}' is produced more than once"
    for node in graph.node:
        for name in node.input:
            if name and name not in made and name not in given:
                yield f"{_called(node)} reads '{name}', which nothing produces"
    for output in graph.output:
        if output.name not in made and output.name not in given:
            yield f"output '{output.name}' is produced by no node"


def _acyclic(file: OnnxFile, target: str) -> Iterator[str]:
    if not unsorted(file):
        return
    nodes = file.proto.graph.node
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = {i: {maker[x] for x in node.input if x in maker} for i, node in enumerate(nodes)}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as exc:
        yield f"the graph has a cycle, through {_called(nodes[exc.args[1][0]])}"


def _tensor_types(file: OnnxFile, target: str) -> Iterator[str]:
    for what, value in values(file):
        if not value.type.HasField("tensor_type"):
            kind = (value.type.WhichOneof("value") or "untyped value").removesuffix("_type")
            yield f"{what} '{value.name}' is a {kind}: only tensors can be served"
            continue
        number = value.type.tensor_type.elem_type
        name = TensorProto.DataType.Name(number) if number in _TYPE_NUMBERS else str(number)
        try:
            dtype = dtypes.from_onnx(number)
        except KeyError:
            yield f"{what} '{value.name}' has type {name}, which Triton has not"
            continue
        # TensorRT takes DOUBLE in and makes FLOAT of it, without saying so.
        served = dtype.tensorrt is not None or number == TensorProto.DOUBLE
        if target != "onnxruntime" and not served:
            yield (
                f"{what} '{value.name}' has type {name}, which TensorRT has not: use target "
                "onnxruntime, or do this step in a model before or after it"
            )


def _input_shapes(file: OnnxFile, target: str) -> Iterator[str]:
    for what, value in values(file):
        kind = value.type.tensor_type
        if not kind.HasField("shape") and what == "input":
            yield f"input '{value.name}' has no shape, so its rank is unknown: export it again"
        for axis, dim in enumerate(kind.shape.dim if what == "input" else ()):
            if dim.HasField("dim_value") and dim.dim_value == 0:
                yield f"input '{value.name}': dimension {axis} is 0, so it never holds a value"


def _weight_files(file: OnnxFile, target: str) -> Iterator[str]:
    folder = file.path.resolve().parent
    for tensor in tensors(file.proto.graph):
        if not external(tensor):
            continue
        name = location(tensor)
        weights = (folder / name).resolve()
        needed = int(external_entry(tensor, "offset", "0"))
        needed += int(external_entry(tensor, "length", "0"))
        if not name or not weights.is_relative_to(folder):
            yield f"weight '{tensor.name}': its file '{name}' lies outside the model's folder"
        elif not weights.is_file():
            yield f"the weight file '{name}' is missing next to the model: copy it there too"
        elif weights.stat().st_size < needed:
            yield (
                f"the weight file '{name}' is too short ({weights.stat().st_size} bytes, "
                f"'{tensor.name}' ends at {needed}): an incomplete copy"
            )


def _operators(file: OnnxFile, target: str) -> Iterator[str]:
    local = {(f.domain, f.name) for f in file.proto.functions}
    for graph in graphs(file.proto.graph):
        for node in graph.node:
            if (node.domain, node.op_type) in local:
                continue
            if node.domain in ("", "ai.onnx"):
                if not onnx.defs.has(node.op_type):
                    yield f"{_called(node)}: ONNX has no operator '{node.op_type}'"
            elif node.domain not in _SERVED_DOMAINS[target == "onnxruntime"]:
                yield (
                    f"{_called(node)} is of the custom domain '{node.domain}': "
                    f"{_CUSTOM[target == 'onnxruntime']}"
                )


# Operator domains that a target executes without the user's help: TensorRT, ONNX Runtime.
_SERVED_DOMAINS = (
    frozenset({"trt", "trt.plugins"}),
    frozenset({"com.microsoft", "ai.onnx.ml", "ai.onnx.preview", "com.ms.internal.nhwc"}),
)
_CUSTOM = (
    "TensorRT needs a plugin for it, and none is named in the spec",
    "ONNX Runtime has no such operator without a custom operator library",
)


def _checker(file: OnnxFile, target: str) -> Iterator[str]:
    if unsorted(file) or any(n.domain not in ("", "ai.onnx") for n in file.proto.graph.node):
        return  # the checker refuses both; the first is mended later, the second is known by now
    try:
        onnx.checker.check_model(str(file.path))
    except Exception as exc:  # ValidationError, and what the C++ side raises
        yield f"not valid ONNX: {_one_line(exc)}"


def _shapes_agree(file: OnnxFile, target: str) -> Iterator[str]:
    if any(n.domain not in ("", "ai.onnx") for n in file.proto.graph.node) or unsorted(file):
        return
    try:
        light = _without_large_weights(file.proto)
        onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True)
    except Exception as exc:
        yield f"shapes or types in the graph contradict each other: {_one_line(exc)}"


def _without_large_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the values of small tensors only: no large one says a shape."""
    graph = proto.graph
    light = onnx.ModelProto(
        ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions
    )
    light.graph.name = graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(light.graph, field).extend(getattr(graph, field))
    for weight in graph.initializer:
        if math.prod(weight.dims) <= _SMALL:
            light.graph.initializer.append(weight)
        else:
            light.graph.initializer.add(
                name=weight.name, dims=weight.dims, data_type=weight.data_type
            )
    return light


_GROUPS: tuple[tuple[_Check, ...], ...] = (
    (_versions, _has_outputs),
    (_names, _tensor_types),
    (_acyclic, _input_shapes, _weight_files),
    (_operators,),
    (_checker,),
    (_shapes_agree,),
)


# --- warnings ------------------------------------------------------------------------------


# --- shared --------------------------------------------------------------------------------


def _called(node: onnx.NodeProto) -> str:
    name = f"'{node.name}'" if node.name else f"(unnamed, making '{', '.join(node.output)}')"
    return f"node {name} ({node.op_type})"


def _one_line(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return text if len(text) <= 300 else text[:297] + "..."
