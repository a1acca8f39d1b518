"""What TensorRT's own config says after our options were set; run in a process of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release
from tritonsmith_generator.trt.config import builder_config
from tritonsmith_generator.trt.request import EngineOptions
from tritonsmith_generator.trt.runtime import logger


def read_back(
    request: tuple[Library, EngineOptions, tuple[str, ...]], emit: Callable[[Any], None]
) -> list[Any]:
    """The values of these ``Class.member`` names; memory pools as ``MemoryPoolType.MEMBER``."""
    library, options, names = request
    trt = importlib.import_module(library)
    builder = trt.Builder(logger(trt))
    config = builder_config(trt, Release.parse(library, trt.__version__), builder, options)
    return [_value(trt, config, name) for name in names]


def _value(trt: Any, config: Any, name: str) -> Any:
    owner, _, member = name.partition(".")
    if owner == "BuilderFlag":
        return config.get_flag(getattr(trt.BuilderFlag, member))
    if owner == "MemoryPoolType":
        return config.get_memory_pool_limit(getattr(trt.MemoryPoolType, member))
    if member == "compute_capabilities":
        return [
            config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)
        ]
    if member == "tactic_sources":
        bits = config.get_tactic_sources()
        return [n for n, source in trt.TacticSource.__members__.items() if bits >> int(source) & 1]
    found = getattr(config, member)
    return getattr(found, "name", found)
