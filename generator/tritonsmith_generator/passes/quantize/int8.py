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

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, QuantType, quant_pre_process
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.onnx_file import signature_of
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Condition, PassResult
from tritonsmith_generator.passes.graph.tidy import tidy_up
from tritonsmith_generator.passes.model import is_large, read_model
from tritonsmith_generator.passes.node_selection import ASKED_FOR, check_patterns, matches
from tritonsmith_generator.passes.quantize.ranges import largest_values
from tritonsmith_generator.passes.report import Stopwatch
from tritonsmith_generator.passes.samples import Samples, none_given
from tritonsmith_generator.passes.scales import SMALLEST_SCALE, raise_tiny_scales
from tritonsmith_generator.spec.quantization import Quantization

__all__ = ["Int8"]

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

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
    With ``float_weights`` weights stay FP32 in front of a Q and a DQ: TensorRT 8.6 compiles
    transformers from nothing else.
    """

    samples: Samples | None
    keep: tuple[str, ...] = ()
    options: Quantization = Quantization()
    float_weights: bool = False
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
            raise none_given("int8")
        file = onnx_file.read(model)
        check_patterns(file.proto, self.keep)
        batches = self.samples.read(signature_of(file.proto), self.options.max_samples)
        large = is_large(file)
        folded, quantized = workdir / "folded.onnx", workdir / "quantized.onnx"
        if file.external and not large:  # ONNX Runtime would look for them beside its own copy
            model = read_model(model).write(workdir / "whole.onnx")
        with _quiet(), _in_words():
            quant_pre_process(model, folded, skip_symbolic_shape=True, save_as_external_data=large)
            kept = _left_alone(file.proto.graph, folded, self.keep)
            read = _activations(folded, kept)
            ranges = largest_values(folded, read, batches, self.options, workdir)
            _quantize(folded, quantized, ranges, self, kept, large)
        work = read_model(quantized)
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
        for stem in ("whole", "folded", "quantized"):
            for intermediate in workdir.glob(f"{stem}.*"):
                intermediate.unlink()
        return result


def _activations(model: Path, kept: Mapping[str, str]) -> list[str]:
    """Return what the nodes read that are quantized, weights apart."""
    nodes = onnx_file.read(model).proto.graph.node
    found = [n.input[0] for n in nodes if n.op_type in OPERATORS and n.name not in kept]
    return list(dict.fromkeys(found))


def _quantize(
    model: Path,
    target: Path,
    ranges: Mapping[str, float],
    how: Int8,
    kept: Mapping[str, str],
    large: bool,
) -> None:
    both = {name: (np.float32(-end), np.float32(end)) for name, end in ranges.items()}
    quantizer = QDQQuantizer(
        load_model_with_shape_infer(model),
        per_channel=how.options.per_channel,
        reduce_range=bool(how.options.reduce_range),
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, both),
        nodes_to_quantize=[],
        nodes_to_exclude=list(kept),
        op_types_to_quantize=list(OPERATORS),
        extra_options={**_OPTIONS, "AddQDQPairToWeight": how.float_weights},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(target, large)


def _left_alone(original: onnx.GraphProto, model: Path, keep: tuple[str, ...]) -> dict[str, str]:
    """Return the names of the nodes that could be quantized and are not, with the reason."""
    graph = onnx_file.read(model).proto.graph
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
    """Remove the domains that the quantizer imports for operators that are not used."""
    used = {node.domain for graph in onnx_file.graphs(proto.graph) for node in graph.node}
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
    """Silence the quantizer, whose advice doesn't concern the user of this package."""
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
