"""The user's builder options, set on TensorRT's ``IBuilderConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.trt.availability import (
    OPTIONS,
    Release,
    check_machine,
    check_options,
    precision_flags,
    require,
)
from tritonsmith_generator.trt.request import EngineOptions
from tritonsmith_generator.trt.timing_cache import use_timing_cache

__all__ = ["builder_config"]


def builder_config(trt: Any, release: Release, builder: Any, options: EngineOptions) -> Any:
    """Return a config with every option set.

    Raises InputError for one that this TensorRT has not, HostError for one that needs a GPU.
    """
    check_options(release, options)
    check_machine(release, options, has_gpu=bool(visible_gpus()))
    config = builder.create_builder_config()
    # The engine inspector tells no data types without it.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for flag in precision_flags(release, options.precision):
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if options.precision in ("fp32", "tf32"):
        _set_flag(config, trt.BuilderFlag.TF32, options.precision == "tf32")
    for name in options.given():
        if name in OPTIONS and OPTIONS[name].direct:
            _set_directly(trt, release, config, name, getattr(options, name))
    _set_memory_pools(trt, release, config, options.memory_pools)
    if options.tactic_sources:
        _set_tactic_sources(trt, release, config, options.tactic_sources)
    if options.compute_capabilities:
        _set_compute_capabilities(trt, release, config, options.compute_capabilities)
    if options.timing_cache is not None:
        use_timing_cache(config, options.timing_cache)
    if options.dla_core is not None:
        _use_dla(trt, builder, config, options.dla_core)
    return config


def _set_directly(trt: Any, release: Release, config: Any, name: str, value: Any) -> None:
    option = OPTIONS[name]
    owner, _, member = option.name.partition(".")
    if owner == "BuilderFlag":
        _set_flag(config, getattr(trt.BuilderFlag, member), value)
    elif option.enum is None:
        setattr(config, member, value)
    else:
        setattr(config, member, _member(trt, release, option.enum, name, value))


def _set_tactic_sources(trt: Any, release: Release, config: Any, sources: tuple[str, ...]) -> None:
    members = [_member(trt, release, "TacticSource", "tactic_sources", word) for word in sources]
    config.set_tactic_sources(sum(1 << int(member) for member in members))


def _set_memory_pools(trt: Any, release: Release, config: Any, pools: Mapping[str, int]) -> None:
    for pool, size in pools.items():
        kind = _member(trt, release, "MemoryPoolType", "memory_pools", pool)
        config.set_memory_pool_limit(kind, size)


def _set_compute_capabilities(
    trt: Any, release: Release, config: Any, capabilities: tuple[str, ...]
) -> None:
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        word = f"SM{capability.replace('.', '')}"
        known = trt.ComputeCapability.__members__
        if word not in known:
            has = [f"{m[2:-1]}.{m[-1]}" for m in known if m.startswith("SM")]
            raise InputError(
                f"option 'compute_capabilities' is '{capability}'; {release} builds for: "
                f"{', '.join(has)}"
            )
        config.set_compute_capability(known[word], index)


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise InputError(
            f"option 'dla_core' is {core}; this machine has {builder.num_DLA_cores} DLA cores"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def _member(trt: Any, release: Release, enum: str, option: str, word: str) -> Any:
    """Return the member of the TensorRT enum that the option's word stands for."""
    members = getattr(trt, enum).__members__
    name = word.upper()
    require(release, f"{enum}.{name}", option)
    if name not in members:
        raise InputError(
            f"option '{option}' is '{word}'; {release} has: "
            f"{', '.join(member.lower() for member in members)}"
        )
    return members[name]


def _set_flag(config: Any, flag: Any, value: bool) -> None:
    if value:
        config.set_flag(flag)
    else:
        config.clear_flag(flag)
