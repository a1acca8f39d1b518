"""Plugin libraries, loaded into this process by what will load them into a server's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.trt.backend_code import server_code
from tritonsmith_generator.trt.runtime import logger

__all__ = ["load_plugins"]


def load_plugins(trt: Any, plugins: Sequence[Path]) -> tuple[Path, ...]:
    """Register what the libraries hold, for builders and runtimes of this process alike.

    Returns those that register nothing when they are opened, but have to be asked by TensorRT.
    Raises InputError for one that does not load.
    """
    if not plugins:
        return ()
    with server_code():
        from tritonsmith_backend import plan_plugins
    errors = logger(trt).errors
    before = len(errors)
    try:
        return plan_plugins.load_plugins(trt, plugins)
    except RuntimeError as exc:
        raise InputError(": ".join([str(exc), *errors[before:][:1]])) from exc
