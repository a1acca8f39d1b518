"""One engine build, as `gen-repo` makes it: in the process of this environment's toolchain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.request import (
    EngineReport,
    EngineRequest,
    Progress,
    UnsupportedNode,
)

__all__ = ["build_engine", "unsupported_nodes"]


def build_engine(
    request: EngineRequest, on_progress: Callable[[Progress], None] = lambda _: None
) -> EngineReport:
    with LOCAL.process(request.library) as process:
        return process.build(request, on_progress)


def unsupported_nodes(
    library: Library, onnx: Path, plugins: tuple[Path, ...] = ()
) -> tuple[UnsupportedNode, ...]:
    with LOCAL.process(library) as process:
        return process.unsupported(onnx, plugins)
