"""Which passes a precision needs on a target, and what its builder has to be told.

From TensorRT 10 on, and in TensorRT for RTX, engines are strongly typed: the graph says the
precision. TensorRT 8 and 9 keep the graph and take builder flags; INT8 is in the graph there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.passes.base import Pass
from tritonsmith_generator.passes.graph.tidy import Tidy
from tritonsmith_generator.passes.samples import Samples
from tritonsmith_generator.spec.builder_options import LIBRARY_NAMES, Precision
from tritonsmith_generator.spec.quantization import BLOCK_SIZES, Quantization, check_quantization

__all__ = ["Executor", "Options", "Recipe", "for_precision", "precisions_of"]

Executor = Literal["tensorrt", "tensorrt_rtx", "onnxruntime"]


@dataclass(frozen=True)
class Options:
    """What the user may say about a conversion.

    Attributes:
        keep: nodes that are left alone: names, operators or outputs, with ``*`` and ``?``. With
            fp16 and bf16 they stay in FP32; with int8, fp8 and int4 they are not quantized, and
            computed in what surrounds the quantized ones (FP16, on TensorRT 10 and newer).
        samples: inputs to measure ranges with; needed for int8 and fp8.
        simplify: fold and fuse with onnxslim first, if the result is equal.
        sparse: prune weights to 2:4 sparsity.
        quantization: how int8, fp8 and int4 choose their steps.
    """

    keep: tuple[str, ...] = ()
    samples: Samples | None = None
    simplify: bool = False
    sparse: bool = False
    quantization: Quantization = Quantization()


@dataclass(frozen=True)
class Recipe:
    """The passes, in order, and what they ask of a plan's builder.

    ``prepare`` are those before the change of precision, which doesn't depend on ``keep``.
    ``sparse_weights``: the builder is to use that weights are pruned.
    """

    prepare: tuple[Pass, ...]
    lower: tuple[Pass, ...]
    sparse_weights: bool = False

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (*self.prepare, *self.lower)


def for_precision(
    precision: Precision, library: Executor, version: str, options: Options = Options()
) -> Recipe:
    """Return the recipe for a precision on a target, e.g. ``("fp16", "tensorrt", "10.13.3.9")``.

    Raises InputError where the target cannot compute in that precision.
    """
    every = _steps(library, version)
    steps = every.get(precision)
    if steps is None:
        raise InputError(
            f"{_name(library, version)} has no precision {precision}; it has: "
            f"{', '.join(every)}{_NEEDS.get(precision, '')}"
        )
    check_quantization(options.quantization, precision, library)
    chosen = tuple(steps(_for_library(options, library)))
    if options.keep and not chosen:
        raise InputError(
            f"keep has no effect with precision {precision} on {_name(library, version)}: the "
            "graph stays as it is; leave keep out, or use TensorRT 10 or newer"
        )
    before = tuple(_prepare(options))
    prepare = (Tidy(), *before) if before or chosen else ()
    return Recipe(prepare, chosen, options.sparse)


def precisions_of(library: Executor, version: str) -> tuple[str, ...]:
    """Return what the target can compute in."""
    return tuple(_steps(library, version))


def _steps(library: Executor, version: str) -> Mapping[str, _Steps]:
    strongly_typed = library == "tensorrt_rtx" or int(version.split(".")[0]) >= 10
    kind = library if library == "onnxruntime" else "strong" if strongly_typed else "weak"
    return _STEPS[kind]


def _for_library(options: Options, library: Executor) -> Options:
    """Return the options with the defaults of the library.

    TensorRT has INT4 blocks of certain sizes only, TensorRT for RTX of what suits the layers; ONNX
    Runtime may come to serve on a CPU whose kernels saturate with weights of 8 bits.
    """
    how = options.quantization
    if library == "tensorrt" and how.block_size is None:
        how = replace(how, block_size=BLOCK_SIZES[library][0])
    if library == "onnxruntime" and how.reduce_range is None:
        how = replace(how, reduce_range=True)
    return replace(options, quantization=how)


def _name(library: Executor, version: str) -> str:
    return f"{LIBRARY_NAMES.get(library, 'ONNX Runtime')} {version}"


_NEEDS = {
    "bf16": "; bf16 needs TensorRT 10",
    "fp8": "; fp8 needs TensorRT 10",
    "int4": "; int4 needs TensorRT 10",
}


def _prepare(options: Options) -> list[Pass]:
    """Return the passes before any change of precision."""
    steps: list[Pass] = []
    if options.simplify:
        from tritonsmith_generator.passes.graph.simplify import Simplify  # half a second

        steps.append(Simplify(options.samples))
    if options.sparse:
        from tritonsmith_generator.passes.graph.sparse import Sparse

        steps.append(Sparse(options.keep))
    return steps


def _nothing(options: Options) -> list[Pass]:
    return []


def _fp16(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.half.half import Fp16

    return [Fp16(options.keep)]


def _fp16_for_onnx_runtime(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.half.half import Fp16

    return [Fp16(options.keep, for_onnx_runtime=True)]


def _bf16(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.graph.opset import Opset
    from tritonsmith_generator.passes.half.half import BF16_OPSET, Bf16

    return [Opset(BF16_OPSET), Bf16(options.keep)]


def _smooth(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.quantize.smooth import Smooth

    how = options.quantization
    if how.smooth is None or options.samples is None:  # without samples Int8 says what it needs
        return []
    return [Smooth(options.samples, options.keep, how.smooth, how.max_samples)]


def _int8(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.graph.opset import Opset
    from tritonsmith_generator.passes.quantize.int8 import PER_CHANNEL_OPSET, Int8

    quantize = Int8(options.samples, options.keep, options.quantization)
    return [Opset(PER_CHANNEL_OPSET), *_smooth(options), quantize]


# Q and DQ take scales in half precision from this opset on.
_HALF_SCALES_OPSET = 19


def _int8_with_float_weights(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.graph.opset import Opset
    from tritonsmith_generator.passes.quantize.int8 import PER_CHANNEL_OPSET, Int8

    quantize = Int8(options.samples, options.keep, options.quantization, float_weights=True)
    return [Opset(PER_CHANNEL_OPSET), *_smooth(options), quantize]


def _int8_with_fp16(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.graph.opset import Opset
    from tritonsmith_generator.passes.half.half import Fp16
    from tritonsmith_generator.passes.quantize.int8 import Int8

    quantize = Int8(options.samples, options.keep, options.quantization)
    return [Opset(_HALF_SCALES_OPSET), *_smooth(options), quantize, Fp16()]


def _fp8(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.graph.opset import Opset
    from tritonsmith_generator.passes.half.half import Fp16
    from tritonsmith_generator.passes.quantize.modelopt import FP8_OPSET, Fp8

    quantize = Fp8(options.samples, options.keep, options.quantization)
    return [Opset(max(FP8_OPSET, _HALF_SCALES_OPSET)), quantize, Fp16()]


def _int4(options: Options) -> list[Pass]:
    from tritonsmith_generator.passes.graph.opset import Opset
    from tritonsmith_generator.passes.half.half import Fp16
    from tritonsmith_generator.passes.quantize.modelopt import INT4_OPSET, Int4

    quantize = Int4(options.samples, options.keep, options.quantization)
    return [Opset(INT4_OPSET), quantize, Fp16()]


_Steps = Callable[[Options], list[Pass]]

# On ONNX Runtime FP32 is what CPUs compute best in, so INT8 isn't mixed with FP16 there.
_STEPS: Mapping[str, Mapping[str, _Steps]] = {
    "strong": {
        "fp32": _nothing,
        "tf32": _nothing,
        "fp16": _fp16,
        "bf16": _bf16,
        "int8": _int8_with_fp16,
        "fp8": _fp8,
        "int4": _int4,
    },
    "weak": {
        "fp32": _nothing,
        "tf32": _nothing,
        "fp16": _nothing,
        "int8": _int8_with_float_weights,
    },
    "onnxruntime": {"fp32": _nothing, "fp16": _fp16_for_onnx_runtime, "int8": _int8},
}
