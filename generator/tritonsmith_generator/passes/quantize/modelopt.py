"""FP8 and INT4 by NVIDIA ModelOpt, an extra: it needs PyTorch, and its own pins are too narrow."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.onnx_file import signature_of
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Array, Condition, PassResult
from tritonsmith_generator.passes.graph.tidy import tidy_up
from tritonsmith_generator.passes.model import Model, is_large, read_model
from tritonsmith_generator.passes.node_selection import check_patterns, matches
from tritonsmith_generator.passes.report import Stopwatch
from tritonsmith_generator.passes.samples import Samples, none_given
from tritonsmith_generator.passes.scales import SMALLEST_SCALE, raise_tiny_scales
from tritonsmith_generator.spec.quantization import Quantization
from tritonsmith_generator.workers.process import run_isolated

__all__ = ["INT4_OPSET", "PIP", "Fp8", "Int4"]

PIP = "pip install --no-deps nvidia-modelopt==0.47.0 && pip install 'tritonsmith[modelopt]'"

FP8_OPSET, INT4_OPSET = 19, 21

# What is tried where the user names no size: smaller blocks are more accurate, larger ones quicker.
_DEFAULT_BLOCKS = (64, 32, 16)

# ModelOpt takes a dynamic axis for 1 and then quantizes nothing, so it is told this batch.
_ROWS = 8


@dataclass(frozen=True)
class Fp8:
    """Quantize to FP8 (E4M3) with ranges measured on samples. ``keep`` as in Int8."""

    samples: Samples | None
    keep: tuple[str, ...] = ()
    options: Quantization = Quantization()
    name: str = "fp8"
    requires: tuple[Condition, ...] = (
        conditions.tidy,
        conditions.unquantized,
        conditions.opset_at_least(FP8_OPSET),
    )
    ensures: tuple[Condition, ...] = (conditions.tidy, conditions.quantized)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        if self.samples is None:
            raise none_given("fp8")
        watch = Stopwatch(self.name, model)
        work = read_model(model)
        check_patterns(work.proto, self.keep)
        data = _joined(self.samples, work, self.options)
        return _quantized(watch, work, workdir, data, self.keep, {"quantize_mode": "fp8"})


@dataclass(frozen=True)
class Int4:
    """Quantize weights to INT4, a scale for each block along the input channel.

    Without a block size, blocks are the largest of 64, 32 and 16 that divides the input channels
    of every layer; layers that 16 does not divide stay as they are. Without samples weights are
    rounded to the nearest step, with samples ranges are clipped to what hurts outputs least.
    """

    samples: Samples | None = None
    keep: tuple[str, ...] = ()
    options: Quantization = Quantization()
    name: str = "int4"
    requires: tuple[Condition, ...] = (
        conditions.tidy,
        conditions.unquantized,
        conditions.opset_at_least(INT4_OPSET),
    )
    ensures: tuple[Condition, ...] = (conditions.tidy, conditions.quantized)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        watch = Stopwatch(self.name, model)
        work = read_model(model)
        check_patterns(work.proto, self.keep)
        _fold_transposed_weights(work)
        channels = _input_channels(work.graph, self.keep)
        block = self.options.block_size or _largest_block(channels)
        skipped = tuple(name for name, count in channels.items() if count % block)
        if len(skipped) == len(channels):
            found = ", ".join(f"{name}: {count}" for name, count in list(channels.items())[:5])
            why = f"blocks of {block} divide no layer's input channels ({found})"
            none = "no Gemm or MatMul has a stored weight (simplify: true stores computed ones)"
            raise InputError(
                f"nothing can be quantized to INT4: {why if channels else none}; use precision int8"
            )
        options = {
            "quantize_mode": "int4",
            "block_size": block,
            "calibration_method": "awq_clip" if self.samples else "rtn_dq",
        }
        data = _joined(self.samples, work, self.options) if self.samples else {}
        return _quantized(watch, work, workdir, data, (*self.keep, *skipped), options)


def _quantized(
    watch: Stopwatch,
    work: Model,
    workdir: Path,
    data: Mapping[str, Array],
    keep: tuple[str, ...],
    options: Mapping[str, Any],
) -> PassResult:
    _require_modelopt()
    kept = {node.name: "asked for" for node in work.graph.node if matches(node, keep)}
    signature = signature_of(work.proto)
    workdir = workdir.resolve()  # the current folder is another one where ModelOpt runs
    source, quantized = work.write(workdir / "source.onnx"), workdir / "quantized.onnx"
    large = is_large(onnx_file.read(source))
    shapes = {
        t.name: (
            min(len(data[t.name]), t.dims[0] if t.dims[0] > 0 else _ROWS),
            *data[t.name].shape[1:],
        )
        for t in signature.inputs
        if t.name in data
    }
    arguments = {
        "onnx_path": str(source),
        "calibration_data": dict(data) or None,
        "calibration_shapes": _shapes(shapes) if shapes else None,
        "calibration_eps": ["cpu"],
        # ModelOpt takes patterns and looks at the beginning of a name only.
        "nodes_to_exclude": [rf"{re.escape(name)}\Z" for name in kept],
        "high_precision_dtype": "fp32",
        "use_external_data_format": large,
        "output_path": str(quantized),
        "log_level": "ERROR",
        **options,
    }
    # In a process of its own: ModelOpt patches ONNX Runtime's quantizer, which Int8 uses.
    run_isolated(_quantize, arguments, lambda _: None, what=f"ModelOpt on {source.name}")
    result = read_model(quantized)
    del result.graph.value_info[:]  # its unknown sizes all have one name, which readers believe
    raised = raise_tiny_scales(result)
    tidy_up(result)
    outcome = watch.result(
        result.write(workdir / "model.onnx"),
        (f"{raised} scales below {SMALLEST_SCALE:g} were raised to it",) if raised else (),
        kept,
    )
    if not outcome.report.dequantize:
        raise InputError(
            f"nothing was quantized to {options['quantize_mode'].upper()}: ModelOpt skips layers "
            "with fewer than 16 input or output channels; use precision fp16"
        )
    for intermediate in (*workdir.glob("source.*"), *workdir.glob("quantized.*")):
        intermediate.unlink()
    return outcome


def _require_modelopt() -> None:
    if importlib.util.find_spec("modelopt") is None:
        raise HostError(f"precision fp8 and int4 need NVIDIA ModelOpt: {PIP}")


def _quantize(arguments: dict[str, Any], emit: Callable[[str], None]) -> None:
    try:
        from modelopt.onnx.quantization import quantize
    except ImportError as exc:
        raise HostError(f"NVIDIA ModelOpt cannot be imported ({exc}): {PIP}") from exc
    # The first INT4 compiles an extension, with setuptools: it takes a project in the current
    # folder for its own.
    os.chdir(Path(arguments["output_path"]).parent)
    try:
        quantize(**arguments)
    except Exception as exc:  # ModelOpt raises whatever it stumbles over
        mode = arguments["quantize_mode"].upper()
        raise InputError(
            f"ModelOpt cannot quantize the model to {mode}: {' '.join(str(exc).split())[:300]}"
        ) from exc


def _joined(samples: Samples, work: Model, options: Quantization) -> dict[str, Array]:
    """All samples as one array for each input, which is what ModelOpt takes."""
    parts: dict[str, list[Array]] = {}
    for batch in samples.read(signature_of(work.proto), options.max_samples):
        for name, array in batch.items():
            parts.setdefault(name, []).append(array)
    try:
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}
    except ValueError as exc:
        raise InputError(
            f"ModelOpt needs samples of one shape (axis 0 may differ), these are not: {exc}"
        ) from exc


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _fold_transposed_weights(work: Model) -> None:
    """Store Gemm weights as [K, N]: ModelOpt puts the scales of transposed ones on a wrong axis."""
    tensors = {tensor.name: tensor for tensor in work.graph.initializer}
    for node in work.graph.node:
        transposed = [a for a in node.attribute if a.name == "transB" and a.i]
        if node.op_type != "Gemm" or not transposed or node.input[1] not in tensors:
            continue
        tensor = tensors[node.input[1]]
        name = f"{tensor.name}_transposed"
        if name not in tensors:
            rows, columns = tensor.dims
            work.add(name, tensor.data_type, (columns, rows), _transpose(work.values(tensor)))
            tensors[name] = work.graph.initializer[-1]
        node.input[1] = name
        transposed[0].i = 0
    work.drop_unused_weights()


def _transpose(load: Any) -> Any:
    return lambda: np.ascontiguousarray(load().T)


def _input_channels(graph: onnx.GraphProto, keep: tuple[str, ...]) -> dict[str, int]:
    """Return the input channels of each layer that can have INT4 weights."""
    rows = {t.name: t.dims[-2] for t in graph.initializer if len(t.dims) >= 2}
    return {
        node.name: rows[node.input[1]]
        for node in graph.node
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in rows and not matches(node, keep)
    }


def _largest_block(channels: Mapping[str, int]) -> int:
    fits = [count for count in channels.values() if count % _DEFAULT_BLOCKS[-1] == 0]
    blocks = (b for b in _DEFAULT_BLOCKS if fits and all(count % b == 0 for count in fits))
    return next(blocks, _DEFAULT_BLOCKS[-1])
