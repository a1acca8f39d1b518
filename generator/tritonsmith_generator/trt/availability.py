"""Which release of TensorRT and TensorRT for RTX takes which builder option.

``OPTIONS`` says for each option which TensorRT name it sets; ``AVAILABLE`` says which releases have
that name. The releases were read off NVIDIA's own Python bindings (8.6, 10.0 to 10.9, 10.13, 10.16,
11.4; TensorRT for RTX 1.4 and 1.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.spec.builder_options import (
    LIBRARY_NAMES,
    BuilderOptions,
    Library,
    Precision,
)

__all__ = [
    "AVAILABLE",
    "OPTIONS",
    "Availability",
    "Option",
    "Release",
    "check_options",
    "check_without_builder",
]


@dataclass(frozen=True)
class Release:
    """A library's version as far as it matters, e.g. TensorRT 10.13."""

    library: Library
    version: tuple[int, ...]

    @classmethod
    def parse(cls, library: Library, text: str) -> Release:
        """From a version text such as ``"10.13.3.9.post1"``."""
        return cls(library, tuple(int(part) for part in text.split(".") if part.isdigit()))

    @property
    def strongly_typed(self) -> bool:
        """The data types in the graph decide the precision; False on TensorRT 8.6."""
        return self.library == "tensorrt_rtx" or self.version >= (10,)

    def __str__(self) -> str:
        return f"{LIBRARY_NAMES[self.library]} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True)
class Availability:
    """The first release that has a name, and the first that has it no more."""

    tensorrt: tuple[int, ...] | None = None
    tensorrt_gone: tuple[int, ...] | None = None
    rtx: tuple[int, ...] | None = None

    def has(self, release: Release) -> bool:
        first = self.tensorrt if release.library == "tensorrt" else self.rtx
        gone = self.tensorrt_gone if release.library == "tensorrt" else None
        return (
            first is not None
            and first <= release.version
            and not (gone is not None and gone <= release.version)
        )

    def __str__(self) -> str:
        ranges = []
        if self.tensorrt is not None:
            gone = self.tensorrt_gone
            until = "and newer" if gone is None else f"to before {gone[0]}"
            ranges.append(f"TensorRT {'.'.join(map(str, self.tensorrt))} {until}")
        if self.rtx is not None:
            ranges.append(f"TensorRT for RTX {'.'.join(map(str, self.rtx))} and newer")
        return " or ".join(ranges)


@dataclass(frozen=True)
class Option:
    """How an option reaches TensorRT.

    ``name`` is ``Class.member``: a ``BuilderFlag`` is set or cleared, an ``IBuilderConfig``
    attribute is assigned, unless ``direct`` is False: then tensorrt_config.py makes the calls.
    ``enum`` names the class of the values.
    """

    name: str
    enum: str | None = None
    direct: bool = True


OPTIONS: Mapping[str, Option] = {
    "tf32": Option("BuilderFlag.TF32"),
    "version_compatible": Option("BuilderFlag.VERSION_COMPATIBLE"),
    "exclude_lean_runtime": Option("BuilderFlag.EXCLUDE_LEAN_RUNTIME"),
    "refit": Option("BuilderFlag.REFIT"),
    "refit_identical": Option("BuilderFlag.REFIT_IDENTICAL"),
    "refit_individual": Option("BuilderFlag.REFIT_INDIVIDUAL"),
    "strip_plan": Option("BuilderFlag.STRIP_PLAN"),
    "weight_streaming": Option("BuilderFlag.WEIGHT_STREAMING"),
    "sparse_weights": Option("BuilderFlag.SPARSE_WEIGHTS"),
    "strict_nans": Option("BuilderFlag.STRICT_NANS"),
    "gpu_fallback": Option("BuilderFlag.GPU_FALLBACK"),
    "optimization_level": Option("IBuilderConfig.builder_optimization_level"),
    "max_num_tactics": Option("IBuilderConfig.max_num_tactics"),
    "max_aux_streams": Option("IBuilderConfig.max_aux_streams"),
    "avg_timing_iterations": Option("IBuilderConfig.avg_timing_iterations"),
    "l2_limit_for_tiling": Option("IBuilderConfig.l2_limit_for_tiling"),
    "tiling_optimization_level": Option(
        "IBuilderConfig.tiling_optimization_level", "TilingOptimizationLevel"
    ),
    "hardware_compatibility": Option(
        "IBuilderConfig.hardware_compatibility_level", "HardwareCompatibilityLevel"
    ),
    "runtime_platform": Option("IBuilderConfig.runtime_platform", "RuntimePlatform"),
    "tactic_sources": Option("IBuilderConfig.set_tactic_sources", "TacticSource", direct=False),
    "timing_cache": Option("IBuilderConfig.set_timing_cache", direct=False),
    "dla_core": Option("IBuilderConfig.DLA_core", direct=False),
    "compute_capabilities": Option(
        "IBuilderConfig.set_compute_capability", "ComputeCapability", direct=False
    ),
}

# The smallest and the largest value; TensorRT ignores or mistakes what lies outside.
_RANGES: Mapping[str, tuple[int, int | None]] = {
    "optimization_level": (0, 5),
    "max_num_tactics": (1, None),
    "max_aux_streams": (0, None),
    "avg_timing_iterations": (1, None),
    "l2_limit_for_tiling": (0, None),
    "dla_core": (0, None),
}

# TensorRT for RTX compiles for these on the device itself while it builds.
_RTX_NEEDS_GPU = ("refit", "refit_identical", "strip_plan")

# Every name that not all supported releases have, and those that one of them has but ignores
# (TensorRT for RTX: timing cache, hardware compatibility, runtime platform, DLA).
AVAILABLE: Mapping[str, Availability] = {
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": Availability((10, 0), rtx=(1, 4)),
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": Availability((8, 6), (11,)),
    "IProgressMonitor": Availability((10, 0), rtx=(1, 4)),
    "IBuilderConfig.progress_monitor": Availability((10, 0), rtx=(1, 4)),
    "OnnxParser.supports_model": Availability((8, 6), (11,)),
    "ParserError.node_name": Availability((10, 0), rtx=(1, 4)),
    "ParserError.node_operator": Availability((10, 0), rtx=(1, 4)),
    "BuilderFlag.FP16": Availability((8, 6), (11,)),
    "BuilderFlag.INT8": Availability((8, 6), (11,)),
    "BuilderFlag.REFIT_IDENTICAL": Availability((10, 0), rtx=(1, 4)),
    "BuilderFlag.REFIT_INDIVIDUAL": Availability((10, 2), rtx=(1, 4)),
    "BuilderFlag.STRIP_PLAN": Availability((10, 0), rtx=(1, 4)),
    "BuilderFlag.WEIGHT_STREAMING": Availability((10, 0), rtx=(1, 4)),
    "BuilderFlag.STRICT_NANS": Availability((10, 6), rtx=(1, 4)),
    "MemoryPoolType.TACTIC_SHARED_MEMORY": Availability((10, 0), rtx=(1, 4)),
    "MemoryPoolType.DLA_MANAGED_SRAM": Availability((8, 6)),
    "MemoryPoolType.DLA_LOCAL_DRAM": Availability((8, 6)),
    "MemoryPoolType.DLA_GLOBAL_DRAM": Availability((8, 6)),
    "IBuilderConfig.max_num_tactics": Availability((10, 4), rtx=(1, 4)),
    "IBuilderConfig.l2_limit_for_tiling": Availability((10, 8), rtx=(1, 4)),
    "IBuilderConfig.tiling_optimization_level": Availability((10, 8), rtx=(1, 4)),
    "TilingOptimizationLevel": Availability((10, 8), rtx=(1, 4)),
    "IBuilderConfig.runtime_platform": Availability((10, 2)),
    "RuntimePlatform": Availability((10, 2)),
    "IBuilderConfig.hardware_compatibility_level": Availability((8, 6)),
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": Availability((10, 9)),
    "IBuilderConfig.set_timing_cache": Availability((8, 6)),
    "IBuilderConfig.DLA_core": Availability((8, 6)),
    "BuilderFlag.GPU_FALLBACK": Availability((8, 6)),
    "IBuilderConfig.num_compute_capabilities": Availability(rtx=(1, 4)),
    "IBuilderConfig.set_compute_capability": Availability(rtx=(1, 4)),
    "ComputeCapability": Availability(rtx=(1, 4)),
    "ComputeCapability.SM121": Availability(rtx=(1, 5)),
}

_WEAK_PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "fp32": (),
    "tf32": (),
    "fp16": ("FP16",),
    "int8": ("INT8", "FP16"),  # Q/DQ layers in INT8, the others in FP16 where that is quicker
}


def has(release: Release, name: str) -> bool:
    """Whether this release has (and heeds) a name such as ``"BuilderFlag.STRICT_NANS"``."""
    available = AVAILABLE.get(name)
    return available is None or available.has(release)


def require(release: Release, name: str, option: str) -> None:
    """Raise InputError, naming the releases that have it, where ``release`` has no ``name``."""
    if not has(release, name):
        raise InputError(
            f"option '{option}' is not in {release}. It needs {AVAILABLE[name]}. "
            "Remove the option, or install one of these."
        )


def check_values(options: BuilderOptions) -> None:
    """Raise InputError, with the allowed values, for a number that no TensorRT takes."""
    for name, (low, high) in _RANGES.items():
        value = getattr(options, name)
        if value is not None and (value < low or (high is not None and value > high)):
            allowed = f"{low} or more" if high is None else f"{low} to {high}"
            raise InputError(f"option '{name}' is {value}; it must be {allowed}")
    for pool, size in options.memory_pools.items():
        if size < 0:
            raise InputError(f"option 'memory_pools' gives {pool} {size} bytes; 0 is the least")


def check_options(release: Release, options: BuilderOptions) -> None:
    """Raise InputError for a value that no TensorRT takes and an option that ``release`` has not.

    What only the library itself knows (the words of its enums, the accelerators of the machine) is
    checked when it builds.
    """
    check_values(options)
    for name in options.given():
        if name in OPTIONS:
            require(release, OPTIONS[name].name, name)
    for pool in options.memory_pools:
        require(release, f"MemoryPoolType.{pool.upper()}", "memory_pools")


def check_without_builder(options: BuilderOptions, target: str) -> None:
    """Raise InputError for any option: ``target`` runs the ONNX model itself."""
    if given := [*options.given()]:
        raise InputError(
            f"builder.{', builder.'.join(given)}: no effect with target {target}, which builds no "
            "plan; leave them out (builder: null, where defaults set them), or use target auto, "
            "which heeds them where TensorRT is"
        )


def check_machine(release: Release, options: BuilderOptions, has_gpu: bool) -> None:
    """Raise HostError for an option that needs what this machine has not."""
    lean = options.version_compatible and not options.exclude_lean_runtime
    if release.library == "tensorrt_rtx" and lean:
        raise HostError(
            f"option 'version_compatible' puts the lean runtime into the plan, and {release} comes "
            "without one: add exclude_lean_runtime: true"
        )
    if release.library == "tensorrt_rtx" and not has_gpu:
        for name in _RTX_NEEDS_GPU:
            if getattr(options, name):
                raise HostError(
                    f"option '{name}' needs a GPU during the build with {release}, and this "
                    "machine has none: leave it out, or build where the GPU is"
                )


def precision_flags(release: Release, precision: Precision) -> tuple[str, ...]:
    """Members of BuilderFlag that stand for ``precision``; none where the graph decides."""
    if release.strongly_typed:
        return ()
    if precision not in _WEAK_PRECISIONS:
        raise InputError(
            f"precision '{precision}' is not in {release}, which has: "
            f"{', '.join(_WEAK_PRECISIONS)}. It needs TensorRT 10 or newer, or TensorRT for RTX."
        )
    return _WEAK_PRECISIONS[precision]
