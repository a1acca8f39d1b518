"""Which nodes have to stay in FP32 when a graph is lowered to FP16 or BF16, and why."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file

__all__ = ["ASKED_FOR", "check_patterns", "matches"]

ASKED_FOR = "asked for"


def matches(node: onnx.NodeProto, patterns: Sequence[str]) -> bool:
    """Whether a pattern (``*`` and ``?``) fits the node's name, operator or one of its outputs."""
    names = (node.name, node.op_type, *node.output)
    return any(
        name == pattern or fnmatchcase(name, pattern) for pattern in patterns for name in names
    )


def check_patterns(proto: onnx.ModelProto, patterns: Sequence[str]) -> None:
    """Raise InputError for a pattern that fits no node: it is a typing mistake."""
    nodes = [node for graph in onnx_file.graphs(proto.graph) for node in graph.node]
    for pattern in patterns:
        if any(matches(node, (pattern,)) for node in nodes):
            continue
        names = {node.name for node in nodes} | {node.op_type for node in nodes}
        near = difflib.get_close_matches(pattern, sorted(names), n=3, cutoff=0.4) or sorted(
            {node.op_type for node in nodes}
        )
        raise InputError(
            f"keep: '{pattern}' fits no node of the model (name, operator or output); "
            f"near it: {', '.join(near[:8])}"
        )
