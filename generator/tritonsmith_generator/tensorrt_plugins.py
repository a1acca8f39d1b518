"""Plugin libraries, loaded into this process the way that a server's process will load them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.tensorrt_start import logger

__all__ = ["load_plugins"]

# Since TensorRT 10, where the second does not list them all, and before.
_CREATORS = ("all_creators", "plugin_creator_list")


def load_plugins(trt: Any, plugins: Sequence[Path]) -> tuple[Path, ...]:
    """Register what the libraries hold, for builders and runtimes of this process alike.

    Returns those that register nothing when they are opened, but have to be asked by TensorRT.
    Raises InputError for one that does not load.
    """
    # An absolute path: for a bare name the loader looks elsewhere.
    return tuple(plugin for plugin in plugins if not _load(trt, plugin.resolve()))


@cache  # TensorRT refuses a library whose plugins it has, and a check comes before the build
def _load(trt: Any, path: Path) -> bool:
    registry = trt.get_plugin_registry()
    before = _count(registry)
    try:
        ctypes.CDLL(str(path))
    except OSError as exc:
        raise InputError(f"plugin library {path} does not load: {exc}") from exc
    if _count(registry) > before:  # REGISTER_TENSORRT_PLUGIN
        return True
    if registry.load_library(str(path)) is None:
        said = (logger(trt).errors or ["it is no TensorRT plugin library"])[0]
        raise InputError(f"plugin library {path} does not load: {said}")
    return False


def _count(registry: Any) -> int:
    return len(next(getattr(registry, name) for name in _CREATORS if hasattr(registry, name)))
