"""The engine build: an ONNX file and profiles become a serialized TensorRT plan on the disk.

    report = build_engine(EngineRequest("tensorrt_rtx", onnx, plan, profiles), on_progress=print)

The build runs in a process of its own (``worker``), because parsers and kernels crash for real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tritonsmith_generator.engine.entrypoints import build_here, unsupported_here
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.builder_options import BuilderOptions, Library
from tritonsmith_generator.trt.request import (
    EngineReport,
    EngineRequest,
    Progress,
    UnsupportedNode,
    check_request,
)

__all__ = ["BuilderOptions", "Library", "build_engine", "unsupported_nodes"]


def build_engine(
    request: EngineRequest,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    timeout: float | None = None,
) -> EngineReport:
    """Build the plan in a process of its own and report on it.

    Raises:
        InputError: the model, a profile or an option does not suit this TensorRT.
        HostError: TensorRT or what it needs is missing, memory ran out, or the build crashed.

    The file at ``request.plan`` is written whole or not touched.
    """
    from tritonsmith_generator.workers import process as worker  # not for the process that builds

    check_request(request)
    try:
        return worker.run_isolated(
            build_here,
            request,
            on_progress,
            what=f"the engine build of {request.onnx.name}",
            timeout=timeout,
        )
    finally:
        request.unfinished.unlink(missing_ok=True)


def unsupported_nodes(
    library: Library, onnx: Path, plugins: tuple[Path, ...] = ()
) -> tuple[UnsupportedNode, ...]:
    """The nodes that this TensorRT cannot take; quick, nothing is built. Errors as above."""
    if not onnx.is_file():
        raise InputError(f"there is no model file {onnx}")
    from tritonsmith_generator.workers import process as worker

    return worker.run_isolated(
        unsupported_here,
        (library, onnx, plugins),
        lambda _: None,
        what=f"the check of {onnx.name}",
    )
