"""The ``builder`` of a spec: what a user may tell TensorRT's builder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

__all__ = ["BuilderOptions", "Library", "Precision"]

Library = Literal["tensorrt", "tensorrt_rtx"]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8", "int4"]
LIBRARY_NAMES: Mapping[str, str] = {
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT for RTX",
}


@dataclass(frozen=True)
class BuilderOptions:
    """What the user says of one engine build. None leaves TensorRT's own default.

    Attributes:
        tf32: overrides what the model's precision says about TF32.
        memory_pools: bytes (a spec may say ``4GiB``) by pool: ``workspace``, ``tactic_dram``,
            ``tactic_shared_memory``, ``dla_managed_sram``, ``dla_local_dram``, ``dla_global_dram``.
        optimization_level: 0 (quick build) to 5 (quick engine).
        hardware_compatibility: ``ampere_plus`` or ``same_compute_capability``.
        refit, refit_identical, refit_individual, strip_plan: weights that can be changed or are
            left out of the plan.
        tactic_sources: names in ``tensorrt.TacticSource``, in lower case.
        plugins: shared libraries with plugins, loaded before the model is parsed.
        dla_core: run on this deep-learning accelerator.
        compute_capabilities: GPUs that a TensorRT for RTX plan is made for, e.g. ``("8.6",)``.
    """

    # The spec reads its ``builder`` into this: a key that isn't one is an error there.
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    tf32: bool | None = None
    memory_pools: Mapping[str, int] = field(default_factory=dict)
    optimization_level: int | None = None
    hardware_compatibility: str | None = None
    version_compatible: bool | None = None
    exclude_lean_runtime: bool | None = None
    runtime_platform: str | None = None
    refit: bool | None = None
    refit_identical: bool | None = None
    refit_individual: bool | None = None
    strip_plan: bool | None = None
    weight_streaming: bool | None = None
    sparse_weights: bool | None = None
    strict_nans: bool | None = None
    max_num_tactics: int | None = None
    max_aux_streams: int | None = None
    avg_timing_iterations: int | None = None
    tiling_optimization_level: str | None = None
    l2_limit_for_tiling: int | None = None
    tactic_sources: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()
    dla_core: int | None = None
    gpu_fallback: bool | None = None
    compute_capabilities: tuple[str, ...] = ()

    def given(self) -> Iterator[str]:
        """Yield the names of the options that differ from their defaults."""
        default = type(self)()
        for option in fields(self):
            if getattr(self, option.name) != getattr(default, option.name):
                yield option.name
