"""Starts servers: the embedded tritonserver, and NVIDIA's container."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritonsmith_generator.serve.embedded.server import Server
    from tritonsmith_generator.serve.log import LogLine

# Imported when first used: a build that has nothing to do needs the names of images alone.
_HOME = {"LogLine": "log", "Server": "embedded.server"}

__all__ = ["LogLine", "Server"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
