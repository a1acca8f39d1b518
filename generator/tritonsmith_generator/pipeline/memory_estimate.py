"""How much memory the build of a model will take: an estimate from the size of its weights."""

from __future__ import annotations

import re
from pathlib import Path

from tritonsmith_generator.errors import TritonsmithError
from tritonsmith_generator.repository.lock import LockedModel
from tritonsmith_generator.spec.schema import ModelSpec, resolve_source

__all__ = ["peak_memory", "weights_size"]

# Bytes. What libraries and a small model take, with and without an engine builder's process.
_BASE, _BUILDER = 400 << 20, 1 << 30
# Times the weights: a conversion and ONNX Runtime's answers (2.6 to 3.8 were measured), and an
# engine builder beside them (6.2 together).
_CONVERSION, _BUILD = 4, 3
# Bytes, of a torch module that was never exported: nobody knows yet.
_UNKNOWN = 1 << 30
# An ONNX file above this size has its weights inside; looking for others would take too long.
_GRAPH_ONLY = 64 << 20
# How protobuf writes the entry "location" of external data; the last group is the path's length.
_LOCATION = re.compile(rb"\n\x08location\x12([\x80-\xff]?[\x01-\x7f])", re.DOTALL)


def peak_memory(spec: ModelSpec, folder: Path, locked: LockedModel | None, compiled: bool) -> int:
    """Bytes that the processes of a model's build will hold at most; a guess on the safe side."""
    weights = _weights(spec, folder, locked)
    build = _BUILDER + _BUILD * weights if compiled else 0
    return _BASE + _CONVERSION * weights + build


def weights_size(model: Path) -> int:
    """Bytes of an ONNX file and of the weight files that it names; 0 if it isn't there."""
    try:
        size = model.stat().st_size
        names = _external(model.read_bytes()) if size <= _GRAPH_ONLY else set()
    except OSError:
        return 0
    files = [model.parent / name for name in names]
    return size + sum(file.stat().st_size for file in files if file.is_file())


def _weights(spec: ModelSpec, folder: Path, locked: LockedModel | None) -> int:
    if spec.onnx is None:
        known = locked.sources.values() if locked is not None else ()
        return sum(record.size for record in known) or _UNKNOWN
    try:
        return weights_size(resolve_source(spec.onnx, folder))
    except TritonsmithError:
        return 0  # the build will say what is wrong


def _external(graph: bytes) -> set[str]:
    """Return the weight files' paths without parsing the graph: this process loads no onnx."""
    names = set()
    for match in _LOCATION.finditer(graph):
        low, *high = match[1]
        length = (low & 0x7F) + (high[0] << 7 if high else 0)
        names.add(graph[match.end() : match.end() + length].decode(errors="replace"))
    return names
