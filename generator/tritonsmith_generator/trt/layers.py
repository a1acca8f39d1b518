"""What is in a built engine: its layers by kind and by precision, from the engine inspector."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.builder_options import Precision

__all__ = ["EngineLayers", "engine_layers", "needs_proof", "prove_precision", "unproven"]

# How the inspector writes a type: alone ("Half") or in a format's description ("Row major linear
# FP16 format"). The lowest comes first: a layer is as precise as its least precise operand.
_TYPES: tuple[tuple[str, str], ...] = (
    ("fp4", r"fp4"),
    ("int4", r"int4"),
    ("fp8", r"fp8"),
    ("int8", r"int8"),
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"half|fp16"),
    ("fp32", r"float|fp32"),
)
_LOWEST = {name: rank for rank, (name, _) in enumerate(_TYPES)}
# They move or name data; what they compute with proves nothing.
_IDLE = frozenset({"reformat", "noop", "constant", "signal", "wait", "shape_call", "shape call"})
# Graphs that TensorRT compiles whole; the inspector shows their edges only.
_OPAQUE = frozenset({"myelin"})
# The least share of the layers that has to be in the precision asked for; one layer at least.
_SHARES: Mapping[str, float] = {"fp16": 0.1, "bf16": 0.1, "int8": 0.0, "fp8": 0.0, "int4": 0.0}


@dataclass(frozen=True)
class EngineLayers:
    """Counts of an engine's layers after fusion.

    Attributes:
        kinds: by TensorRT's ``LayerType``.
        precisions: ``fp32``, ``fp16`` and so on, of layers that compute; ``unknown`` are whole
            graphs that the inspector does not look into. Integer arithmetic is left out.
    """

    kinds: Mapping[str, int]
    precisions: Mapping[str, int]

    def __str__(self) -> str:
        """Return the precisions in words."""
        return ", ".join(
            f"{count} {'compiled as one' if name == 'unknown' else f'in {name}'}"
            for name, count in self.precisions.items()
        )


def engine_layers(text: str) -> EngineLayers:
    """From ``get_engine_information`` in JSON, of an engine built with detailed profiling."""
    layers = [
        layer for layer in json.loads(text, strict=False)["Layers"] if isinstance(layer, dict)
    ]
    kinds = Counter(str(layer.get("LayerType", "unknown")) for layer in layers)
    precisions = Counter(filter(None, map(_precision, layers)))
    return EngineLayers(dict(kinds.most_common()), dict(precisions.most_common()))


def prove_precision(layers: EngineLayers, precision: Precision) -> str | None:
    """Raise InputError if an engine asked for in a lower precision computes in another.

    Returns None where that is out of the question, and otherwise why nobody can tell: layers of
    unknown precision get the benefit of the doubt, and prove nothing.
    """
    if not needs_proof(precision):
        return None
    total = sum(layers.precisions.values())
    if not total:
        return unproven(precision, "the engine inspector tells no layer's data type")
    hidden, shown = layers.precisions.get("unknown", 0), layers.precisions.get(precision, 0)
    if _enough(shown, total, precision):
        return None
    if _enough(shown + hidden, total, precision):
        return unproven(
            precision,
            f"{hidden} of {total} layers that compute are graphs compiled as one, into which "
            f"TensorRT's inspector does not look ({layers})",
        )
    most = max(layers.precisions, key=layers.precisions.__getitem__)
    raise InputError(
        f"precision {precision} was asked for, but the engine's layers compute otherwise: "
        f"{layers}. TensorRT found other kernels quicker, or the conversion changed too "
        f"little: ask for {most}, or read the pass's report"
    )


def needs_proof(precision: Precision) -> bool:
    """Whether it is lower than what an engine computes in anyhow."""
    return precision in _SHARES


def unproven(precision: Precision, why: str) -> str:
    """Return what the summary says of a plan whose precision nobody can tell."""
    return f"plan: precision {precision} is not proven: {why}"


def _enough(count: int, total: int, precision: Precision) -> bool:
    return count > 0 and count / total >= _SHARES[precision]


def _precision(layer: Mapping[str, Any]) -> str | None:
    kind = str(layer.get("LayerType", "")).lower()
    if kind in _IDLE:
        return None
    weights = layer.get("Weights")
    texts = [str(tensor.get("Format/Datatype", "")) for tensor in layer.get("Inputs", ())]
    if isinstance(weights, dict):
        texts.append(str(weights.get("Type", "")))
    found = [name for text in texts for name, pattern in _TYPES if _is(pattern, text)]
    if not found:
        return None
    lowest = min(found, key=lambda name: _LOWEST[name])
    return "unknown" if kind in _OPAQUE and lowest == "fp32" else lowest


def _is(pattern: str, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", text, re.IGNORECASE) is not None
