"""INT8 by explicit quantization: Q and DQ nodes with ranges measured on samples.

ONNX Runtime's quantizer, told what TensorRT takes: symmetric (a zero point that isn't zero is
refused), biases in FP32 (an INT32 DQ is refused), only the operators that gain from INT8.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from tritonsmith_generator import onnxfile
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnxfile import signature_of
from tritonsmith_generator.passes import conditions, weights
from tritonsmith_generator.passes.base import Arrays, Condition, PassResult
from tritonsmith_generator.passes.calibration import Samples
from tritonsmith_generator.passes.census import Stopwatch
from tritonsmith_generator.passes.scales import SMALLEST_SCALE, raise_tiny_scales
from tritonsmith_generator.passes.selection import check_patterns, matches
from tritonsmith_generator.passes.tidy import tidy_up

__all__ = ["Int8"]

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

ASKED_FOR = "asked for"

# ONNX Runtime's log levels; the second is its default, which cannot be asked for.
_ORT_ERROR, _ORT_WARNING = 3, 2

# Weights per channel need an axis on DequantizeLinear, which it has from this opset on.
PER_CHANNEL_OPSET = 13

_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(OPERATORS),
}


@dataclass(frozen=True)
class Int8:
    """Quantize to INT8. ``keep``: names or patterns of nodes that stay as they are.

    Scales are FP32; the FP16 pass after this one makes them FP16 where the opset is 19 or newer.
    """

    samples: Samples | None
    keep: tuple[str, ...] = ()
    name: str = "int8"
    requires: tuple[Condition, ...] = (
        conditions.tidy,
        conditions.unquantized,
        conditions.opset_at_least(PER_CHANNEL_OPSET),
    )
    ensures: tuple[Condition, ...] = (
        conditions.tidy,
        conditions.quantized,
        conditions.standard_domains,
    )

    def apply(self, model: Path, workdir: Path) -> PassResult:
        watch = Stopwatch(self.name, model)
        if self.samples is None:
            raise InputError(
                "int8 needs samples to measure ranges with: give accuracy.samples in the spec "
                "(a .npz file, a folder of .npy files or package.module:function)"
            )
        file = onnxfile.read(model)
        check_patterns(file.proto, self.keep)
        batches = self.samples.read(signature_of(file.proto))
        large = file.size > weights.INLINE_LIMIT
        folded, quantized = workdir / "folded.onnx", workdir / "quantized.onnx"
        with _quiet(), _in_words():
            quant_pre_process(model, folded, skip_symbolic_shape=True, save_as_external_data=large)
            kept = _left_alone(file.proto.graph, folded, self.keep)
            quantize_static(
                folded,
                quantized,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                calibrate_method=CalibrationMethod.MinMax,
                op_types_to_quantize=list(OPERATORS),
                nodes_to_exclude=list(kept),
                use_external_data_format=large,
                extra_options=_OPTIONS,
            )
        work = weights.read(quantized)
        _drop_foreign_domains(work.proto)
        raised = raise_tiny_scales(work)
        tidy_up(work)
        result = watch.result(
            work.write(workdir / "model.onnx"),
            (f"{raised} scales below {SMALLEST_SCALE:g} were raised to it",) if raised else (),
            kept=kept,
        )
        if not result.report.dequantize:
            raise InputError(_nothing(file.proto, kept))
        for intermediate in (*workdir.glob("folded.*"), *workdir.glob("quantized.*")):
            intermediate.unlink()
        return result


class _Reader:
    """What the quantizer asks for samples (its base class is checked by method names)."""

    def __init__(self, batches: Iterator[Arrays]) -> None:
        self._batches = batches

    def get_next(self) -> Any:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _left_alone(original: onnx.GraphProto, model: Path, keep: tuple[str, ...]) -> dict[str, str]:
    """The names of the nodes that could be quantized and are not, with the reason."""
    graph = onnxfile.read(model).proto.graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    is_kept = _fused_from([node for node in original.node if matches(node, keep)])
    reasons: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in OPERATORS:
            continue
        if is_kept(node):
            reasons[node.name] = ASKED_FOR
        elif node.input[1] not in ranks:
            reasons[node.name] = "its weight is not constant"
        elif node.op_type == "MatMul" and ranks[node.input[1]] != 2:
            reasons[node.name] = f"its weight has {ranks[node.input[1]]} axes, not 2"
    return reasons


def _fused_from(kept: list[onnx.NodeProto]) -> Callable[[onnx.NodeProto], bool]:
    """Whether a node is one of those, or was fused from one: fusion appends to the node's name."""
    names = {node.name for node in kept}
    outputs = {name for node in kept for name in node.output}
    return lambda node: (
        node.name in names
        or node.name.rpartition("/")[0] in names
        or not outputs.isdisjoint(node.output)
    )


def _drop_foreign_domains(proto: onnx.ModelProto) -> None:
    """The quantizer imports the domains of all its operators, used or not."""
    used = {node.domain for graph in onnxfile.graphs(proto.graph) for node in graph.node}
    for entry in [o for o in proto.opset_import if o.domain not in used | {"", "ai.onnx"}]:
        proto.opset_import.remove(entry)


def _nothing(proto: onnx.ModelProto, kept: Mapping[str, str]) -> str:
    if not any(node.op_type in OPERATORS for node in proto.graph.node):
        why = f"the model has none of the operators that are ({', '.join(OPERATORS)})"
    else:
        why = "; ".join(f"'{name}': {reason}" for name, reason in list(kept.items())[:5])
    return f"nothing was quantized, because {why}; use precision fp16"


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs advice that doesn't concern the user of this package."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(_ORT_ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
        onnxruntime.set_default_logger_severity(_ORT_WARNING)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as exc:  # the quantizer raises whatever it stumbles over
        raise InputError(
            f"the model cannot be quantized to INT8: {' '.join(str(exc).split())[:300]}; "
            "use precision fp16"
        ) from exc
