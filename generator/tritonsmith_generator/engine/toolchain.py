"""Where plans are compiled: with the TensorRT of this environment, or with a server image's own.

``imagebuild`` has the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release

if TYPE_CHECKING:
    from tritonsmith_generator.trt.plan_run import PlanAnswers, PlanQuestion
    from tritonsmith_generator.trt.request import EngineReport, EngineRequest, Progress

__all__ = ["LOCAL", "Toolchain"]


class Toolchain(Protocol):
    """A place with TensorRT libraries.

    Attributes:
        releases: the libraries that it has.
        identity: what else a plan built there follows from, such as the image; for the lock.
        facts: what the lock records besides, and no plan follows from.
        timings: the folder of its timing caches.
    """

    @property
    def releases(self) -> tuple[Release, ...]: ...
    @property
    def identity(self) -> Mapping[str, str]: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def timings(self) -> Path: ...

    def missing(self, library: Library) -> HostError:
        """What to say where a model needs a library that this place has not."""

    def build_engine(
        self, request: EngineRequest, on_progress: Callable[[Progress], None]
    ) -> EngineReport:
        """Build the plan. Raises InputError and HostError, as ``engine.build_engine``."""

    def run_plan(
        self, question: PlanQuestion, on_progress: Callable[[Progress], None]
    ) -> PlanAnswers:
        """Run a plan that was built there on the GPU. Raises HostError."""


class _Local:
    """This environment's own libraries."""

    identity: Mapping[str, str] = {}
    facts: Mapping[str, str] = {}

    @property
    def releases(self) -> tuple[Release, ...]:
        return tensorrt_releases()

    @property
    def timings(self) -> Path:
        return cache_folder("timing")

    def missing(self, library: Library) -> HostError:
        extra = library.replace("_", "-")
        return HostError(
            f"target {library}: the Python package '{library}' is not installed: "
            f"pip install 'tritonsmith[{extra}]'"
        )

    def build_engine(
        self, request: EngineRequest, on_progress: Callable[[Progress], None]
    ) -> EngineReport:
        from tritonsmith_generator.engine.isolated import build_engine

        return build_engine(request, on_progress)

    def run_plan(
        self, question: PlanQuestion, on_progress: Callable[[Progress], None]
    ) -> PlanAnswers:
        from tritonsmith_generator.engine.entrypoints import ask_here
        from tritonsmith_generator.workers import process as worker

        return worker.run_isolated(ask_here, question, on_progress, what="the run of the plan")


LOCAL: Toolchain = _Local()
