"""TensorRT loads and its builder starts, which takes seconds: next to nothing is imported before.

It is the beginning of ``tensorrt``, for a process that starts before it is known what to build.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from tritonsmith_generator.errors import HostError

if TYPE_CHECKING:  # all that can wait for TensorRT does
    from tritonsmith_generator.spec.builder_options import Library

__all__ = ["load", "logger", "prepare", "prepared", "taken"]

_EXTRA = {"tensorrt": "tritonsmith[tensorrt]", "tensorrt_rtx": "tritonsmith[tensorrt-rtx]"}
_builders: dict[Library, Any] = {}  # that were made before they were needed


def prepare(library: Library) -> None:
    """Make a builder, which takes seconds where it starts CUDA. Raises HostError."""
    prepared(library)


def prepared(library: Library) -> Any:
    """Return the builder that was made, or is made now; it stays prepared. Raises HostError."""
    if library not in _builders:
        _builders[library] = _builder(library)
    return _builders[library]


def taken(library: Library) -> Any:
    """As ``prepared``, for the one who changes it: who asks next gets another one."""
    prepared(library)
    return _builders.pop(library)


def load(library: Library) -> Any:
    """Return the Python module. Raises HostError."""
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as exc:
        raise HostError(
            f"target {library}: Python module '{exc.name}' is not installed. "
            f"Install it with: pip install '{_EXTRA[library]}'"
        ) from exc
    except (ImportError, OSError) as exc:
        raise HostError(f"target {library}: its libraries do not load: {exc}") from exc


@cache
def logger(trt: Any) -> Any:
    """Return the logger of this process; TensorRT heeds only the first one that it sees.

    ``errors`` and ``warnings`` are lists of texts, ``last_error`` is the last of them or "".
    """

    class Log(trt.ILogger):  # type: ignore[misc]  # NVIDIA's classes are untyped
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.kept = {
                trt.ILogger.INTERNAL_ERROR: self.errors,
                trt.ILogger.ERROR: self.errors,
                trt.ILogger.WARNING: self.warnings,
            }

        def log(self, severity: Any, message: str) -> None:
            # A build says thousands of verbose things: a look-up takes a quarter of comparisons.
            if (kept := self.kept.get(severity)) is not None:
                kept.append(message)

        @property
        def last_error(self) -> str:
            return self.errors[-1] if self.errors else ""

    return Log()


def _builder(library: Library) -> Any:
    trt = load(library)
    try:
        return trt.Builder(logger(trt))
    except TypeError as exc:  # what pybind11 makes of a null pointer
        from tritonsmith_generator.trt.availability import Release

        said = "; ".join(logger(trt).errors) or str(exc)
        raise HostError(
            f"{Release.parse(library, trt.__version__)} does not start: {said}. It needs an NVIDIA "
            "GPU and a driver that is new enough; without a GPU use target tensorrt_rtx or "
            "onnxruntime."
        ) from exc
