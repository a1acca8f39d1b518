"""Recurrent layers that stay in FP32, and what has to stay with them.

TensorRT fails to compile LSTM, GRU or RNN where a cast is right before it, or only something that
moves values is between (seen with TensorRT for RTX 1.7). So either none of them stays in FP32, or
all do, together with what makes the values that they read.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

__all__ = ["kept_around"]

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_MOVES = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)


def kept_around(
    graph: onnx.GraphProto, reason_to_keep: Callable[[onnx.NodeProto], str | None]
) -> dict[str, str]:
    """First outputs of the nodes that stay in FP32 because a recurrent layer does, with why.

    ``reason_to_keep`` says for a recurrent layer whether it cannot be lowered itself.
    """
    recurrent = [node for node in graph.node if node.op_type in _RECURRENT]
    first = next((node for node in recurrent if reason_to_keep(node)), None)
    if first is None:
        return {}
    why = f"it is compiled together with '{first.name}' ({first.op_type}), which stays in FP32"
    maker = {name: node for node in graph.node for name in node.output}
    kept: dict[str, str] = {}
    todo = list(recurrent)
    while todo:
        node = todo.pop()
        if node.output[0] in kept:
            continue
        kept[node.output[0]] = why
        if node.op_type in _RECURRENT | _MOVES:
            todo += [maker[name] for name in node.input if name in maker]
    return kept
