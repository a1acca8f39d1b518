"""The process that builds a model's plan: started early, so that TensorRT loads while others work.

with toolchain.process("tensorrt") as process:
    process.prepare()
    ...
    report = process.build(request, on_progress)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tritonsmith_generator.engine.entrypoints import (
    ask_here,
    build_here,
    prepare_here,
    unsupported_here,
)
from tritonsmith_generator.workers.process import Child

if TYPE_CHECKING:  # whatever takes time to import can be imported while the process starts
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

__all__ = ["EngineProcess", "local_process", "start_early"]

OnProgress = Callable[["Progress"], None]
# The threads of numpy's linear algebra, which has nothing to do there, begin by spinning.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


class EngineProcess(Protocol):
    """Where one plan is built. Leaving it as a context ends whatever still runs there."""

    def prepare(self) -> None:
        """Start it, if it isn't, and load TensorRT there; returns at once.

        Errors are raised by what follows.
        """

    def unsupported(self, onnx: Path, plugins: tuple[Path, ...]) -> tuple[UnsupportedNode, ...]:
        """Return the nodes that this TensorRT cannot take; quick, nothing is built.

        Empty where that is not known before the build. Raises HostError.
        """

    def build(self, request: EngineRequest, on_progress: OnProgress) -> EngineReport:
        """Build the plan and report on it. The file is written whole or not touched.

        Raises InputError where the model, a profile or an option does not suit this TensorRT;
        HostError where TensorRT or what it needs is missing, memory ran out, or the build crashed.
        """

    def ask(self, question: PlanQuestion, on_progress: OnProgress) -> PlanAnswers:
        """Run a plan on the GPU. Raises HostError if that fails."""

    def stop(self) -> None:
        """End it without waiting; ``build``, in another thread, then raises HostError."""

    def __enter__(self) -> EngineProcess: ...
    def __exit__(self, *_: object) -> None: ...


def local_process(library: Library) -> EngineProcess:
    """Return a process of this environment. Nothing is started yet, unless ``start_early`` has."""
    return _early.pop(library, None) or _LocalProcess(library)


def start_early(library: Library) -> None:
    """Start what the next ``local_process`` of this process will be."""
    if library not in _early:
        # Before its first work this process has one thread, and next to nothing is loaded.
        _early[library] = _LocalProcess(library, fork=threading.active_count() == 1)
        _early[library].prepare()


_early: dict[Library, EngineProcess] = {}


class _LocalProcess(EngineProcess):
    def __init__(self, library: Library, fork: bool = False) -> None:
        self._library, self._fork = library, fork
        self._child: Child | None = None

    def prepare(self) -> None:
        if self._child is None:
            self._started().prepare(prepare_here, self._library)

    def unsupported(self, onnx: Path, plugins: tuple[Path, ...]) -> tuple[UnsupportedNode, ...]:
        return self._started().run(
            unsupported_here,
            (self._library, onnx, plugins),
            lambda _: None,
            what=f"the check of {onnx.name}",
        )

    def build(self, request: EngineRequest, on_progress: OnProgress) -> EngineReport:
        from tritonsmith_generator.trt.request import check_request

        check_request(request)
        try:
            what = f"the engine build of {request.onnx.name}"
            return self._started().run(build_here, request, on_progress, what=what)
        finally:
            request.unfinished.unlink(missing_ok=True)

    def ask(self, question: PlanQuestion, on_progress: OnProgress) -> PlanAnswers:
        return self._started().run(ask_here, question, on_progress, what="the run of the plan")

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()

    def _started(self) -> Child:
        if self._child is None:
            self._child = Child(_ONE_THREAD, fork=self._fork)
        return self._child
