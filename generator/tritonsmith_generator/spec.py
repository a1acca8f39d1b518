"""What the user writes: ``models.yaml``, read strictly.

An unknown key, a wrong type or a key written twice is an InputError that names the file, the
line and what was allowed there.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tritonsmith_generator.builder_options import BuilderOptions, Precision
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.quantization import Quantization

__all__ = [
    "Batching",
    "Instances",
    "ModelSpec",
    "Shapes",
    "Spec",
    "Target",
    "Warmup",
    "load_spec",
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
    """How many copies of the model run side by side, and where."""

    count: Annotated[int, Field(ge=1)] = 1
    kind: Literal["auto", "cpu", "gpu"] = "auto"
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = ()


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
    without unit; ``fallback`` whether nodes may stay in FP32 so that the limit is kept.
    """

    samples: str | None = None
    limit: Annotated[float, Field(gt=0)] | None = None
    fallback: bool = True


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
        """What cases are recorded from; a model that was calibrated on real data is not judged by
        random numbers, which lie outside its ranges."""
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
        pools = builder.get("memory_pools") if isinstance(builder, dict) else None
        if not isinstance(pools, dict):
            return builder
        return {**builder, "memory_pools": {pool: _bytes(size) for pool, size in pools.items()}}

    @field_validator("builder")
    @classmethod
    def _not_set_twice(cls, builder: BuilderOptions) -> BuilderOptions:
        if builder.precision != "fp32" or builder.timing_cache is not None:
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


def load_spec(path: Path) -> Spec:
    """Read ``models.yaml``. ``defaults`` are merged beneath each model. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as exc:
        raise InputError(f"cannot read the spec {path}: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if root is None or not isinstance(data, dict):
        raise InputError(
            f"{path}: a spec is a mapping with the key 'models', such as "
            "models: {name: {onnx: model.onnx}}"
        )
    _refuse_repeated_keys(path, root)
    defaults = data.pop("defaults", None) or {}
    merged = dict(data)
    if isinstance(defaults, dict) and isinstance(data.get("models"), dict):
        merged["models"] = {
            name: merge(defaults, model) if isinstance(model, dict) else model
            for name, model in data["models"].items()
        }
    try:
        return Spec.model_validate(merged)
    except ValidationError as exc:
        # One mistake in defaults is found once for each model.
        found = dict.fromkeys(_describe(path, root, error) for error in exc.errors())
        raise InputError("\n".join(found)) from exc


def resolve_source(source: str, folder: Path) -> Path:
    """The file that ``onnx:`` names: relative to the spec's folder, or inside a Python package.

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


def _describe(path: Path, root: yaml.Node, error: Any) -> str:
    """One pydantic error as: file, line, key, what is wrong, what is allowed."""
    line, keys = _locate(root, error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = _allowed(keys[:-1])
        near = difflib.get_close_matches(str(keys[-1]), allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        message = f"unknown key{hint} (allowed: {', '.join(allowed)})"
    elif error["type"] == "missing":
        message = f"the key '{error['loc'][-1]}' is missing"
    elif isinstance(error["input"], str | int | float):
        message += f" (given: {error['input']!r})"
    return f"{path}:{line}: {'.'.join(keys) or 'the spec'}: {message}"


def _mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value)


def _refuse_repeated_keys(path: Path, root: yaml.Node) -> None:
    for mapping in _mappings(root):
        first: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if first.setdefault(key.value, line) != line:
                raise InputError(
                    f"{path}:{line}: the key '{key.value}' is already set on line "
                    f"{first[key.value]}: remove one of them"
                )


# The models by the path of keys that leads to them; "*" stands for any key or index.
_SCHEMA: dict[tuple[str, ...], type[Any]] = {
    (): Spec,
    ("models", "*"): ModelSpec,
    ("models", "*", "builder"): BuilderOptions,
    ("models", "*", "quantization"): Quantization,
    ("models", "*", "batching"): Batching,
    ("models", "*", "instances"): Instances,
    ("models", "*", "accuracy"): Accuracy,
    ("models", "*", "shapes", "*"): Shapes,
    ("models", "*", "shapes", "*", "*"): Shapes,
    ("models", "*", "warmup"): Warmup,
}


def _allowed(keys: tuple[str, ...]) -> list[str]:
    if keys[:1] == ("defaults",):
        keys = ("models", "*", *keys[1:])
    for pattern, model in _SCHEMA.items():
        if len(pattern) == len(keys) and all(
            want in ("*", got) for want, got in zip(pattern, keys, strict=True)
        ):
            extra = ["defaults"] if model is Spec else []
            return extra + list(model.__annotations__)
    return []


def _locate(root: yaml.Node, loc: tuple[str | int, ...]) -> tuple[int, tuple[str, ...]]:
    """The line (from 1) and the keys, as written, of the value that pydantic's ``loc`` means."""
    found = _walk(root, loc)
    if len(found[1]) < len(loc) and loc[:1] == ("models",):
        inherited = _walk(root, ("defaults", *loc[2:]))  # merged in from there
        found = max(found, inherited, key=lambda place: len(place[1]) + (place is inherited))
    return found


def _walk(node: yaml.Node, loc: tuple[str | int, ...]) -> tuple[int, tuple[str, ...]]:
    line, keys = node.start_mark.line, []
    for key in loc:
        step = _child(node, key)
        if step is not None:  # an index of ours, where one profile was written without a list
            line, node = step
            keys.append(str(key))
    return line + 1, tuple(keys)


def _child(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line, node.value[key]
    return None
