"""The plugin libraries of a plan, loaded before it is: TensorRT finds no plugin by itself.

A build loads them with this too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["load_plugins"]

# Since TensorRT 10, where the second does not list them all, and before.
_CREATORS = ("all_creators", "plugin_creator_list")


def load_plugins(trt: ModuleType, libraries: Sequence[Path]) -> tuple[Path, ...]:
    """Register what these libraries hold, for builders and runtimes of this process alike.

    Returns those that register nothing when they are opened, but have to be asked by TensorRT.
    Raises RuntimeError for a library that is missing or that does not load.
    """
    # An absolute path: for a bare name the loader looks elsewhere.
    return tuple(library for library in libraries if not _load(trt, library.resolve()))


@cache  # TensorRT refuses a library whose plugins it has
def _load(trt: ModuleType, path: Path) -> bool:
    if not path.is_file():
        raise RuntimeError(
            f"the plugin library {path} is missing, and the plan needs it: copy it there, or build "
            "the model again (gen-repo build)"
        )
    registry = trt.get_plugin_registry()
    before = _count(registry)
    try:
        ctypes.CDLL(str(path))
    except OSError as exc:
        raise RuntimeError(f"the plugin library {path} does not load: {exc}") from exc
    if _count(registry) > before:  # REGISTER_TENSORRT_PLUGIN
        return True
    if registry.load_library(str(path)) is None:
        raise RuntimeError(f"the plugin library {path} registers no plugin with TensorRT")
    return False


def _count(registry: Any) -> int:
    return len(next(getattr(registry, name) for name in _CREATORS if hasattr(registry, name)))
