"""What ONNX itself says about an operator: which inputs and outputs may be of which type."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import onnx
from onnx import TensorProto, defs

__all__ = ["STANDARD", "Operator", "operator"]

STANDARD = frozenset({"", "ai.onnx"})


class Operator:
    """An operator of the standard set at one opset."""

    def __init__(self, schema: defs.OpSchema) -> None:
        self._schema = schema
        self._allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

    def input_takes(self, index: int, type_name: str) -> bool:
        """Whether input ``index`` may be of a type, e.g. ``"tensor(float16)"``."""
        return self._takes(_formal(self._schema.inputs, index), type_name)

    def output_takes(self, index: int, type_name: str) -> bool:
        """Whether output ``index`` may be of a type."""
        return self._takes(_formal(self._schema.outputs, index), type_name)

    def output_follows_input(self, index: int) -> bool:
        """Whether the type of output ``index`` is that of some input, not an attribute's."""
        variable = _formal(self._schema.outputs, index).type_str
        return any(formal.type_str == variable for formal in self._schema.inputs)

    def output_type(self, index: int, inputs: Sequence[int]) -> int:
        """Return output ``index``'s type number for inputs of these types; 0 if it isn't clear."""
        text = _formal(self._schema.outputs, index).type_str
        for position, number in enumerate(inputs):
            if number and _formal(self._schema.inputs, position).type_str == text:
                return number
        return _NUMBERS.get(text, 0)

    def _takes(self, formal: defs.OpSchema.FormalParameter, type_name: str) -> bool:
        return type_name in self._allowed.get(formal.type_str, [formal.type_str])


_NUMBERS: dict[str, int] = {
    f"tensor({name.lower()})": number for name, number in TensorProto.DataType.items()
}


def _formal(
    formals: Sequence[defs.OpSchema.FormalParameter], index: int
) -> defs.OpSchema.FormalParameter:
    """Return the formal parameter; the last may be variadic and stand for all further ones."""
    return formals[min(index, len(formals) - 1)]


def operator(node: onnx.NodeProto, opset: int) -> Operator | None:
    """Return the node's operator; None where ONNX has no such operator at this opset."""
    return _operator(node.op_type, opset) if node.domain in STANDARD else None


@cache
def _operator(name: str, opset: int) -> Operator | None:
    try:
        return Operator(defs.get_schema(name, opset, ""))
    except defs.SchemaError:
        return None
