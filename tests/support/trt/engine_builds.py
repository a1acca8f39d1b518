"""One engine build, as `gen-repo` makes it: in the process of this environment's toolchain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.onnx_model.profiles import Profile, ShapeRange
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.request import (
    EngineOptions,
    EngineReport,
    EngineRequest,
    Progress,
    UnsupportedNode,
)

__all__ = ["assert_refused", "batches", "both", "build_engine", "request", "unsupported_nodes"]


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


def request(onnx: Path, tmp_path: Path, *profiles: Profile, **options: Any) -> EngineRequest:
    plan = tmp_path / "model.plan"
    return EngineRequest("tensorrt_rtx", onnx, plan, profiles, EngineOptions(**options))


def both(low: tuple[int, ...], best: tuple[int, ...], high: tuple[int, ...]) -> Profile:
    shapes = ShapeRange(low, best, high)
    return {"ids": shapes, "mask": shapes}


def batches(low: int, best: int, high: int) -> Profile:
    return {"x": ShapeRange((low, 256), (best, 256), (high, 256))}


def assert_refused(build: EngineRequest, kind: type[Exception], *texts: str) -> None:
    """The build fails with every text in its message and leaves no file."""
    with pytest.raises(kind) as caught:
        build_engine(build)
    for text in texts:
        assert text in str(caught.value)
    assert not list(build.plan.parent.glob("*.plan*"))
    assert not list(build.plan.parent.glob(".*"))
