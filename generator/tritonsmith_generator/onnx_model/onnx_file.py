"""Reading an ONNX file: always by path, weights left where they are (models over 2 GB exist)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from tritonsmith_client import dtypes
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.signature import Dim, Signature, Tensor

__all__ = [
    "OnnxFile",
    "external",
    "external_entry",
    "graphs",
    "location",
    "read",
    "repeated_node_names",
    "signature_of",
    "tensors",
    "unsorted",
    "values",
]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model on disk; ``proto`` holds its graph without the external weights."""

    path: Path
    proto: onnx.ModelProto

    @property
    def external(self) -> tuple[str, ...]:
        """The weight files, as paths relative to the model's folder, each once."""
        return tuple(dict.fromkeys(location(t) for t in tensors(self.proto.graph) if external(t)))

    @property
    def files(self) -> tuple[Path, ...]:
        """The model file and its weight files."""
        return (self.path, *(self.path.parent / name for name in self.external))

    @property
    def size(self) -> int:
        """Bytes on disk, external weights included."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def opset(self) -> int:
        """The version of the standard operator set; 0 where the model declares none."""
        return max(
            (o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), default=0
        )


def read(path: Path) -> OnnxFile:
    """Read the graph. Raises InputError for everything that isn't an ONNX file."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
        size = path.stat().st_size
    except FileNotFoundError as exc:
        raise InputError(f"{path}: no such model file") from exc
    except OSError as exc:
        raise InputError(f"{path}: cannot read the model file: {exc.strerror}") from exc
    for looks_like, message in _NOT_ONNX:
        if looks_like(head):
            raise InputError(f"{path}: {message}")
    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as exc:
        raise InputError(
            f"{path}: not a readable ONNX file ({size} bytes): truncated, corrupt or something "
            "else; copy it again and compare its checksum with the origin's"
        ) from exc
    if not proto.graph.node:
        raise InputError(f"{path}: no graph with nodes in it, so this is not an ONNX model")
    return OnnxFile(path, proto)


_NOT_ONNX = (
    (lambda head: not head, "the file is empty (0 bytes)"),
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "this is a Git LFS pointer, not the model: run 'git lfs pull' in its repository",
    ),
    (
        lambda head: head.lstrip()[:1] == b"<",
        "this is an HTML or XML page, not an ONNX model: the download went wrong "
        "(a login or error page?)",
    ),
    (
        lambda head: head[:2] == b"PK",
        "this is a zip archive (a PyTorch checkpoint?), not an ONNX model: unpack it, or export "
        "the PyTorch model with 'gen-repo export'",
    ),
)


def signature_of(proto: onnx.ModelProto) -> Signature:
    """Return the graph's inputs (without those that are weights) and outputs.

    Expects a model that passed ``precheck``: every type is a tensor type that Triton knows.
    """
    weights = {initializer.name for initializer in proto.graph.initializer}
    return Signature(
        inputs=tuple(_tensor(v) for v in proto.graph.input if v.name not in weights),
        outputs=tuple(_tensor(v) for v in proto.graph.output),
    )


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    return Tensor(
        name=value.name,
        dtype=dtypes.from_onnx(kind.elem_type),
        shape=tuple(_dim(dim) for dim in kind.shape.dim),
    )


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    return dim.dim_param or "?"


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and every sub-graph in its nodes (If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from graphs(inner)


def tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor: weights and constants, those of sub-graphs too."""
    for inner in graphs(graph):
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def external(tensor: TensorProto) -> bool:
    """Whether the tensor's values lie in a file of their own."""
    return tensor.data_location == TensorProto.EXTERNAL


def location(tensor: TensorProto) -> str:
    """Return the file that holds an external tensor, relative to the model's folder."""
    return external_entry(tensor, "location", "")


def external_entry(tensor: TensorProto, key: str, default: str) -> str:
    """One entry of the tensor's external_data: location, offset or length."""
    return next((e.value for e in tensor.external_data if e.key == key), default)


def values(file: OnnxFile) -> Iterator[tuple[str, onnx.ValueInfoProto]]:
    """List the graph's inputs (without those that are weights) and outputs, each with its kind."""
    graph = file.proto.graph
    weights = {initializer.name for initializer in graph.initializer}
    yield from (("input", v) for v in graph.input if v.name not in weights)
    yield from (("output", v) for v in graph.output)


def unsorted(file: OnnxFile) -> bool:
    """Tell whether a node reads what a later one makes."""
    graph = file.proto.graph
    made_later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if any(name in made_later for name in node.input):
            return True
        made_later.difference_update(node.output)
    return False


def repeated_node_names(file: OnnxFile) -> tuple[str, ...]:
    """Find the names that several nodes have."""
    names = Counter(node.name for node in file.proto.graph.node if node.name)
    return tuple(name for name, count in names.items() if count > 1)
