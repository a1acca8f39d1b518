"""A toolchain with a bug in it, which no error of ours foresees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release
from tritonsmith_generator.trt.plan_run import PlanAnswers, PlanQuestion
from tritonsmith_generator.trt.request import EngineReport, EngineRequest, Progress

__all__ = ["BROKEN"]


class _Broken:
    identity: Mapping[str, str] = {}
    facts: Mapping[str, str] = {}
    timings = Path()

    @property
    def releases(self) -> tuple[Release, ...]:
        return (1 // 0,)  # type: ignore[return-value]

    def missing(self, library: Library) -> HostError:
        raise NotImplementedError

    def build_engine(
        self, request: EngineRequest, on_progress: Callable[[Progress], None]
    ) -> EngineReport:
        raise NotImplementedError

    def run_plan(
        self, question: PlanQuestion, on_progress: Callable[[Progress], None]
    ) -> PlanAnswers:
        raise NotImplementedError


BROKEN = _Broken()
