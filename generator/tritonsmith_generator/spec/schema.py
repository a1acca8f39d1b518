"""What the user may write into ``models.yaml``, as values; ``specfile`` reads it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.builder_options import BuilderOptions, Precision
from tritonsmith_generator.spec.limits import Limits
from tritonsmith_generator.spec.quantization import Quantization

__all__ = [
    "Batching",
    "Instances",
    "ModelSpec",
    "Shapes",
    "Spec",
    "Target",
    "Warmup",
]

Target = Literal["auto", "onnxruntime", "tensorrt", "tensorrt_rtx"]
Sizes = tuple[Annotated[int, Field(ge=0)], ...]

# Triton takes a folder's name for the model's name; these characters are safe in paths and URLs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _one_number_needs_no_list(values: Any) -> Any:
    return (values,) if isinstance(values, int) else values


Integers = Annotated[tuple[int, ...], BeforeValidator(_one_number_needs_no_list)]
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(rf"(\d+) *({'|'.join(_UNITS)})")


def _bytes(size: Any) -> Any:
    if not isinstance(size, str):
        return size
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ValueError(
            f"a memory pool's size is bytes, or a text such as 4GiB or 512MiB, not {size}"
        )
    return int(found[1]) * _UNITS[found[2]]


class Values(_Strict):
    """The smallest, the usual and the largest values of an input, element by element."""

    min: Integers
    opt: Integers
    max: Integers


class Shapes(_Strict):
    """The shapes of one input: full shapes, batch axis included.

    ``values`` are for an input that says shapes to the model, such as the target of a Reshape:
    TensorRT has to know them. They are taken from ``accuracy.samples`` where there are any.
    Min, opt and max may be left out beside them.
    """

    min: Sizes | None = None
    opt: Sizes | None = None
    max: Sizes | None = None
    values: Values | None = None

    @model_validator(mode="after")
    def _all_ends(self) -> Shapes:
        missing = [end for end in ("min", "opt", "max") if getattr(self, end) is None]
        if missing and (len(missing) < 3 or self.values is None):
            raise ValueError(f"the key '{missing[0]}' is missing")
        return self


class Batching(_Strict):
    """How Triton's dynamic batcher forms batches.

    ``max`` is the largest batch, 1 or more; ``max_delay_us`` how long a request waits for
    company, in microseconds; ``preferred`` the batch sizes to send on at once.
    """

    max: Annotated[int, Field(ge=1)] | None = None
    max_delay_us: Annotated[int, Field(ge=0)] | None = None
    preferred: tuple[Annotated[int, Field(ge=1)], ...] = ()


class Instances(_Strict):
    """How many copies of the model run side by side, and where; ``gpus`` as CUDA counts them."""

    count: Annotated[int, Field(ge=1)] = 1
    kind: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _gpus_of_a_gpu(self) -> Instances:
        if self.kind == "cpu" and self.gpus:
            raise ValueError("'gpus' has no meaning with kind: cpu, and Triton refuses both")
        return self


class Warmup(_Strict):
    """What Triton runs before it calls a version ready: one sample for each profile and end.

    ``at`` names the ends of a profile; only its opt shapes are known to suit each other. ``data``
    is what floats hold: ``zero``, or ``recorded`` from a case (in files in the model's folder).
    Integers, booleans and strings are always recorded ones, because they index weights and count
    things: Triton's own random data would crash some models. ``count`` is runs of each sample.
    """

    at: Annotated[tuple[Literal["min", "opt", "max"], ...], Field(min_length=1)] = ("opt",)
    data: Literal["zero", "recorded"] = "zero"
    count: Annotated[int, Field(ge=1)] = 1


_NO_WARMUP = Warmup.model_construct(at=())


class Accuracy(_Strict):
    """What the recorded cases are made from, and how far an answer may be off.

    ``samples`` is a ``.npz`` file with one array per input (axis 0 is the sample), a folder of
    ``.npy`` files or ``package.module:function``; ``limit`` the largest allowed relative L2 error,
    without unit, or limits by metric, each in the place of the precision's own; ``fallback``
    whether nodes may stay in FP32 so that model and plan keep them; ``plan`` whether the finished
    plan is run, where there is a GPU for it, and has to keep them too.
    """

    samples: str | None = None
    limit: Limits = Limits()
    fallback: bool = True
    plan: bool = True

    @field_validator("limit", mode="before")
    @classmethod
    def _one_number_is_a_relative_error(cls, limit: Any) -> Any:
        given = {} if limit is None else limit
        return given if isinstance(given, dict | Limits) else {"relative_l2": given}


# Keys that a reader of TensorRT's documentation looks for in `builder`.
_NOT_THE_BUILDERS = frozenset({"precision", "timing_cache"})


class ModelSpec(_Strict):
    """One model: where it comes from, how it is converted and how it is to be served.

    ``keep`` names nodes that stay in FP32 (names, operators or outputs, with ``*``);
    ``calibration`` is where int8 and fp8 measure ranges, and each of it and ``accuracy.samples``
    stands in for the other where that is missing;
    ``quantization`` how they and int4 choose their steps;
    ``builder`` holds TensorRT's own options; ``config`` any field of ModelConfig, merged last.

    ``warmup`` is on for plans, whose first request of a shape is slow (TensorRT for RTX compiles
    kernels then), and off for ONNX Runtime, which prepares everything while it loads. It makes
    loading longer by a few runs. ``cuda_graphs`` (TensorRT only) is off: it takes memory for each
    recorded graph, and not every network can be recorded; it helps where batches are small.
    """

    onnx: str | None = None
    torch: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    target: Target = "auto"
    precision: Precision = "fp32"
    keep: tuple[str, ...] = ()
    calibration: str | None = None
    quantization: Quantization = Quantization()
    simplify: bool = False
    sparse: bool = False
    builder: BuilderOptions = BuilderOptions()
    shapes: tuple[Mapping[str, Shapes], ...] = ()
    batching: Batching | None = Batching()
    instances: Instances = Instances()
    accuracy: Accuracy = Accuracy()
    warmup: Warmup | None = None
    cuda_graphs: bool = False
    version: Annotated[int, Field(ge=1)] | None = None
    config: Mapping[str, Any] = {}

    @property
    def case_samples(self) -> str | None:
        """What cases are recorded from.

        A model that was calibrated on real data is not judged by random numbers, which lie outside
        its ranges.
        """
        return self.accuracy.samples or self.calibration

    @property
    def range_samples(self) -> str | None:
        """What INT8 and FP8 measure ranges with."""
        return self.calibration or self.accuracy.samples

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if (self.onnx is None) == (self.torch is None):
            raise ValueError("a model needs either onnx: FILE or torch: package.module:factory")
        return self

    @field_validator("builder", mode="before")
    @classmethod
    def _sizes_in_words(cls, builder: Any) -> Any:
        if builder is None:  # none of those in the defaults
            return BuilderOptions()
        pools = builder.get("memory_pools") if isinstance(builder, dict) else None
        if not isinstance(pools, dict):
            return builder
        return {**builder, "memory_pools": {pool: _bytes(size) for pool, size in pools.items()}}

    @field_validator("builder", mode="before")
    @classmethod
    def _not_set_twice(cls, builder: Any) -> Any:
        if isinstance(builder, dict) and not _NOT_THE_BUILDERS.isdisjoint(builder):
            raise ValueError(
                "'precision' is a key of the model itself, and the timing cache is kept by "
                "gen-repo: leave both out of 'builder'"
            )
        return builder

    @field_validator("shapes", mode="before")
    @classmethod
    def _one_profile_needs_no_list(cls, shapes: Any) -> Any:
        return (shapes,) if isinstance(shapes, dict) else shapes

    @field_validator("warmup", mode="before")
    @classmethod
    def _warmup_on_or_off(cls, warmup: Any) -> Any:
        return {True: Warmup(), False: _NO_WARMUP}[warmup] if isinstance(warmup, bool) else warmup

    @field_validator("batching", mode="before")
    @classmethod
    def _batching_on_or_off(cls, batching: Any) -> Any:
        return {True: Batching(), False: None}[batching] if batching in (True, False) else batching


class Spec(_Strict):
    """A whole repository. ``triton`` is the release that must load it, e.g. "26.10"."""

    triton: Annotated[str, Field(pattern=r"^\d\d\.\d\d$")] | None = None
    models: Mapping[str, ModelSpec]

    @field_validator("models")
    @classmethod
    def _safe_names(cls, models: Mapping[str, ModelSpec]) -> Mapping[str, ModelSpec]:
        for name in models:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"the model name {name!r} is not allowed: letters, digits, '_', '.' and '-', "
                    "beginning with a letter or a digit"
                )
        return models


def resolve_source(source: str, folder: Path) -> Path:
    """Get the file that ``onnx:`` names: relative to the spec's folder, or inside a Python package.

    ``package:NAME/path`` is a file that an installed package carries. Raises InputError.
    """
    if not source.startswith("package:"):
        return folder / Path(source).expanduser()
    package, _, inner = source.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"{source}: the Python package '{package}' is not installed")
    return Path(found.submodule_search_locations[0]) / inner


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, mapping by mapping; any other value replaces the one below."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]  # both
    return merged
