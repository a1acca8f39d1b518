"""What TensorRT is asked, to build a plan or to run one, and what it answers: values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.profiles import Profile
from tritonsmith_generator.onnx_model.signature import Signature
from tritonsmith_generator.spec.builder_options import BuilderOptions, Library, Precision
from tritonsmith_generator.trt.availability import check_values
from tritonsmith_generator.trt.layers import EngineLayers

if TYPE_CHECKING:  # numpy is loaded where there are arrays
    import numpy as np

__all__ = [
    "Arrays",
    "EngineOptions",
    "EngineReport",
    "EngineRequest",
    "PlanAnswers",
    "PlanQuestion",
    "Progress",
    "UnsupportedNode",
    "check_request",
    "refusal",
]

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class EngineOptions(BuilderOptions):
    """What TensorRT is given: the user's options, with what the model's precision asks for.

    Attributes:
        precision: what the graph was converted to. It decides TF32 (on for ``tf32``, off for
            ``fp32``) and, on TensorRT 8.6, the builder's precision flags.
        timing_cache: file that is read before the build and merged into after it.
    """

    precision: Precision = "fp32"
    timing_cache: Path | None = None

    @classmethod
    def of(cls, said: BuilderOptions, precision: Precision) -> EngineOptions:
        """Join what the user says and a precision."""
        return cls(**{f.name: getattr(said, f.name) for f in fields(said)}, precision=precision)


@dataclass(frozen=True)
class EngineRequest:
    """One build.

    Attributes:
        plan: the file to write; its folder exists.
        profiles: the shapes of the inputs.
        values: for each profile, the values (not the shapes) of those inputs that say shapes to
            the model, such as the target of a Reshape. Models without such inputs need none.
    """

    library: Library
    onnx: Path
    plan: Path
    profiles: tuple[Profile, ...] = ()
    options: EngineOptions = EngineOptions()
    values: tuple[Profile, ...] = ()

    @property
    def unfinished(self) -> Path:
        """Where the plan is written before it takes its name."""
        return self.plan.with_name(f".{self.plan.name}.unfinished")


@dataclass(frozen=True)
class Progress:
    """A step of a phase. Phases nest: ``parent`` names the phase around it.

    ``steps`` is None where nobody knows how many there will be (TensorRT 8.6 does not tell).
    A phase may finish before its last step.
    """

    phase: str
    parent: str | None
    step: int
    steps: int | None
    state: Literal["start", "step", "finish"]

    def __str__(self) -> str:
        return self.phase if self.parent is None else f"{self.parent} > {self.phase}"


@dataclass(frozen=True)
class EngineReport:
    """What was built.

    Attributes:
        version: of the library, as it names itself.
        seconds: wall time of parsing and building.
        plan_bytes: size of the plan.
        layers: layers of the network before TensorRT fused them.
        signature: inputs and outputs with the data types that the engine has: DOUBLE became
            FP32, and on TensorRT 8.6 INT64 became INT32.
        profiles: as they were asked for.
        warnings: what TensorRT warned of, each text once.
        compute_capability: of the GPU that the plan was tuned on; None without a GPU.
        engine_layers: what TensorRT made of the network; None where no GPU can open the plan.
        parts: wall seconds by part: parse, build, write, inspect; the last two overlap.
        deferred_plugins: libraries that register nothing by being opened, which is all that
            NVIDIA's tritonserver does; TensorRT has to ask them for their creators.
    """

    library: Library
    version: str
    seconds: float
    plan_bytes: int
    layers: int
    signature: Signature
    profiles: tuple[Profile, ...]
    warnings: tuple[str, ...]
    compute_capability: str | None
    engine_layers: EngineLayers | None
    parts: Mapping[str, float] = field(default_factory=dict)
    deferred_plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnsupportedNode:
    """A node that TensorRT cannot take. ``index`` is its place in the graph."""

    index: int
    name: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"node {self.index} '{self.name}' ({self.operator}): {self.reason}"


@dataclass(frozen=True)
class PlanQuestion:
    """Inputs for a plan: full arrays by name, in the data types that the plan has.

    ``plugins`` are the libraries that it needs.
    """

    library: Library
    plan: Path
    inputs: tuple[Arrays, ...]
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PlanAnswers:
    """The outputs by name for each of the inputs.

    None stands for inputs whose shapes no profile allows. ``skipped`` says why the plan could not
    be asked at all, and is empty where it could.
    """

    outputs: tuple[Arrays | None, ...] = ()
    skipped: str = ""


# More say nothing new; a model that uses an unknown operator has it in every layer.
_LISTED = 10


def refusal(library: str, onnx: Path, nodes: Sequence[UnsupportedNode | str]) -> InputError:
    """Return the error for a model with these nodes, or reasons, that ``library`` cannot take."""
    listed = [*map(str, nodes[:_LISTED])]
    if len(nodes) > _LISTED:
        listed.append(f"and {len(nodes) - _LISTED} more")
    return InputError("\n  ".join([f"{library} cannot take {onnx.name}:", *listed]) + _ADVICE)


_ADVICE = "\nReplace these nodes, bring a plugin for them, or use target onnxruntime."


def check_request(request: EngineRequest) -> None:
    """Raise InputError for files that are not there and values that no TensorRT takes."""
    if not request.onnx.is_file():
        raise InputError(f"there is no model file {request.onnx}")
    if not request.plan.parent.is_dir():
        raise InputError(f"there is no folder {request.plan.parent} for {request.plan.name}")
    for plugin in request.options.plugins:
        if not plugin.is_file():
            raise InputError(f"there is no plugin library {plugin}; build it or correct the path")
    check_values(request.options)
