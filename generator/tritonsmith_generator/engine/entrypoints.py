"""What the process of an engine build runs. Light: who starts that process imports this, too."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tritonsmith_generator.spec.builder_options import Library
    from tritonsmith_generator.trt.request import (
        EngineReport,
        EngineRequest,
        PlanAnswers,
        PlanQuestion,
        Progress,
        UnsupportedNode,
    )

__all__ = ["ask_here", "build_here", "prepare_here", "unsupported_here"]


def prepare_here(library: Library) -> None:
    """Load TensorRT and start its builder, then what comes next."""
    from tritonsmith_generator.trt import runtime

    runtime.prepare(library)
    import_module("tritonsmith_generator.trt.builder")


def build_here(request: EngineRequest, emit: Callable[[Progress], None]) -> EngineReport:
    """As ``builder.build``."""
    from tritonsmith_generator.trt import builder

    return builder.build(request, emit)


def unsupported_here(
    request: tuple[Library, Path, tuple[Path, ...]], emit: Callable[[Progress], None]
) -> tuple[UnsupportedNode, ...]:
    """As ``builder.unsupported_nodes``, for a library, a model and plugins."""
    from tritonsmith_generator.trt import builder

    return builder.unsupported_nodes(*request)


def ask_here(question: PlanQuestion, emit: Callable[[Progress], None]) -> PlanAnswers:
    """As ``builder.ask``."""
    from tritonsmith_generator.trt import builder

    return builder.ask(question, emit)
