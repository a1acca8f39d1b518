"""The plugin libraries of a plan, loaded before it is: TensorRT finds no plugin by itself."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["load_plugins"]

# Since TensorRT 10, where the second does not list them all, and before.
_CREATORS = ("all_creators", "plugin_creator_list")
_loaded: dict[Path, Any] = {}


def load_plugins(trt: ModuleType, libraries: Sequence[Path]) -> None:
    """Register what these libraries hold, for all of this process.

    Raises RuntimeError for a library that is missing or that does not load.
    """
    for library in libraries:
        path = library.resolve()
        if path not in _loaded:
            _loaded[path] = _load(trt.get_plugin_registry(), path)


def _load(registry: Any, path: Path) -> Any:
    if not path.is_file():
        raise RuntimeError(
            f"the plugin library {path} is missing, and the plan needs it: copy it there, or build "
            "the model again (gen-repo build)"
        )
    before = _count(registry)
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as exc:
        raise RuntimeError(f"the plugin library {path} does not load: {exc}") from exc
    # REGISTER_TENSORRT_PLUGIN has done it by now; what TensorRT has to ask for, it takes once.
    if _count(registry) == before and registry.load_library(str(path)) is None:
        raise RuntimeError(f"the plugin library {path} registers no plugin with TensorRT")
    return loaded


def _count(registry: Any) -> int:
    return len(next(getattr(registry, name) for name in _CREATORS if hasattr(registry, name)))
