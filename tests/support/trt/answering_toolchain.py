"""A place with a GPU where there is none: its plans are real, and answered for by ONNX Runtime."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_generator.engine.process import EngineProcess
from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.digest import sha256
from tritonsmith_generator.onnx_model.reference import Reference
from tritonsmith_generator.precision.emulate import emulate
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release
from tritonsmith_generator.trt.layers import EngineLayers
from tritonsmith_generator.trt.request import (
    Arrays,
    EngineReport,
    EngineRequest,
    PlanAnswers,
    PlanQuestion,
    Progress,
    UnsupportedNode,
)

__all__ = ["AnsweringToolchain"]


@dataclass(frozen=True)
class AnsweringToolchain:
    """Each run of a plan appends the shapes of the inputs to ``diary``, as a line.

    ``factor`` is what all answers are multiplied by, ``cut`` how many rows they lack. Where
    ``apart`` is given, a plan's answers are so many times as far from the model's as those of the
    graph that it was built from. Inputs of more than ``rows`` rows are outside of all profiles.
    ``failure`` is what the GPU says instead. ``layers`` is what its inspector shows of each plan.
    """

    model: Path
    diary: Path
    factor: float = 1.0
    apart: float | None = None
    cut: int = 0
    rows: int = 1000
    failure: str = ""
    layers: EngineLayers | None = None

    @property
    def compiles_here(self) -> bool:
        return False

    @property
    def identity(self) -> Mapping[str, str]:
        return {"gpu": "8.9"}

    @property
    def facts(self) -> Mapping[str, str]:
        return {}

    @property
    def releases(self) -> tuple[Release, ...]:
        return LOCAL.releases

    @property
    def timings(self) -> Path:
        return LOCAL.timings

    def missing(self, library: Library) -> HostError:
        return LOCAL.missing(library)

    def process(self, library: Library) -> EngineProcess:
        return _AnsweringProcess(self, LOCAL.process(library))

    def graph_of(self, plan: Path) -> Path:
        return self.diary.with_name(f"{sha256(plan)}.onnx")

    def answers(self, question: PlanQuestion) -> PlanAnswers:
        assert question.plan.stat().st_size > 1000
        with self.diary.open("a") as file:
            shapes = [[*array.shape] for inputs in question.inputs for array in inputs.values()]
            file.write(f"{shapes}\n")
        if self.failure:
            raise HostError(self.failure)
        return PlanAnswers(self._answers(question))

    def _answers(self, question: PlanQuestion) -> tuple[Arrays | None, ...]:
        ask = Reference(self.model)
        if self.apart is None:
            return tuple(self._answer(ask, inputs) for inputs in question.inputs)
        with tempfile.TemporaryDirectory() as folder:
            graph = Reference(emulate(self.graph_of(question.plan), Path(folder)), exact=True)
            return tuple(self._moved(ask, graph, inputs) for inputs in question.inputs)

    def _moved(self, ask: Reference, graph: Reference, inputs: Arrays) -> Arrays:
        assert self.apart is not None
        wanted, got = ask(dict(inputs)), graph(dict(inputs))
        return {
            name: self._changed(wanted[name] + self.apart * (got[name] - wanted[name]))
            for name in wanted
        }

    def _answer(self, ask: Reference, inputs: Arrays) -> Arrays | None:
        if any(len(array) > self.rows for array in inputs.values()):
            return None
        return {name: self._changed(array) for name, array in ask(dict(inputs)).items()}

    def _changed(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (array * self.factor).astype(array.dtype)[self.cut :]


@dataclass
class _AnsweringProcess(EngineProcess):
    """Builds here, and answers for the plan."""

    place: AnsweringToolchain
    here: EngineProcess

    def prepare(self) -> None:
        pass

    def unsupported(self, onnx: Path, plugins: tuple[Path, ...]) -> tuple[UnsupportedNode, ...]:
        return ()

    def build(
        self, request: EngineRequest, on_progress: Callable[[Progress], None]
    ) -> EngineReport:
        report = replace(self.here.build(request, on_progress), engine_layers=self.place.layers)
        shutil.copy(request.onnx, self.place.graph_of(request.plan))
        return report

    def ask(self, question: PlanQuestion, on_progress: Callable[[Progress], None]) -> PlanAnswers:
        return self.place.answers(question)

    def stop(self) -> None:
        self.here.stop()

    def __enter__(self) -> EngineProcess:
        self.here.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.here.__exit__(*raised)
