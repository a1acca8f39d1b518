"""The stages of one model, made or found in the cache: cases, conversion, plan and its accuracy.

Where no pass changes the graph, the plan is built while ONNX Runtime answers the cases.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import get_native_id
from typing import Any

from tritonsmith_generator.accuracy.report import GateReport
from tritonsmith_generator.engine.process import EngineProcess
from tritonsmith_generator.errors import InputError, TritonsmithError
from tritonsmith_generator.onnx_model.case_file import Case, load_cases, served_cases, write_cases
from tritonsmith_generator.onnx_model.cases import record_cases
from tritonsmith_generator.onnx_model.onnx_file import OnnxFile
from tritonsmith_generator.onnx_model.profiles import ProfileSet
from tritonsmith_generator.onnx_model.rows import Rows, refuse_dependent
from tritonsmith_generator.onnx_model.signature import Signature
from tritonsmith_generator.passes.base import Arrays
from tritonsmith_generator.passes.conditions import is_quantized
from tritonsmith_generator.repository.changes import Content
from tritonsmith_generator.stages import plan_accuracy
from tritonsmith_generator.stages.conversion import convert_model
from tritonsmith_generator.stages.fingerprints import (
    NEARER,
    accuracy_stage,
    cases_stage,
    conversion_stage,
    plan_stage,
)
from tritonsmith_generator.stages.graph import Graph, Tell, converted_graph, source_graph
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.stages.plan import (
    Artifact,
    artifact_of_graph,
    artifact_of_plan,
    artifact_to_come,
    compile_plan,
    engine_options,
)
from tritonsmith_generator.stages.runner import Stages
from tritonsmith_generator.stages.stage import Kept, Stage
from tritonsmith_generator.trt.request import refusal

__all__ = ["Made", "ModelStages"]

_CASES = "cases.npz"
_BEHIND = 10  # niceness
_SEARCHES = 3  # more graphs for a plan that fails its gate; each costs a build of the plan

Published = Callable[[Stage], Kept | None]


@dataclass(frozen=True)
class Made:
    """What the stages gave.

    ``notes`` says what passes and builder did, ``rows`` what is known of the rows of a batch.
    ``accuracy`` is what ``plan_accuracy.measure_plan`` found; empty where no plan was run.
    """

    cases: tuple[Case, ...]
    rows: Rows
    artifact: Artifact
    notes: tuple[str, ...]
    accuracy: Mapping[str, Any] = field(default_factory=dict)


class ModelStages:
    """One model's stages. ``make`` is called once.

    ``published`` looks for a stage's result in the repository.
    """

    def __init__(
        self,
        job: Job,
        file: OnnxFile,
        signature: Signature,
        profile_set: ProfileSet,
        samples: Sequence[Arrays],
        stages: Stages,
        published: Published,
        process: EngineProcess,
        tell: Tell,
    ) -> None:
        self._job, self._file, self._signature = job, file, signature
        self._profile_set, self._samples = profile_set, samples
        self._stages, self._published = stages, published
        self._process, self._tell = process, tell
        self._source = source_graph(job, file)
        # What TensorRT makes of Q and DQ does not depend on this machine's CPU.
        self._exact = job.target.compiled and is_quantized(file.proto)
        self._asks = cases_stage(job, self._source.digests, profile_set, self._exact)
        self._cases: tuple[tuple[Case, ...], Rows] | None = None

    def make(self, plans: Artifact | None) -> Made:
        """``plans`` are those that are kept as they are; None if there are none.

        Raises InputError for the model and HostError for what this machine lacks.
        """
        if plans is not None:
            return Made(*self._recorded(), plans, ())
        if self._job.target.compiled:
            return self._compiled()
        graph = self._graph()
        if graph is None:
            return self._to_convert()
        return Made(*self._recorded(), artifact_of_graph(self._job, graph), graph.notes)

    def _graph(self, nearer: float | None = None) -> Graph | None:
        """None in a dry run that would have to convert."""
        return self._converted(nearer) if self._job.recipe.passes else self._source

    def _to_convert(self) -> Made:
        """In a dry run: what follows from a conversion that was not made."""
        if self._job.target.compiled:
            self._stages.follows("plan", "conversion")
        return Made(*self._recorded(), artifact_to_come(self._job), ())

    def _compiled(self) -> Made:
        """Build the plan; if it fails its gate, another with more nodes kept in FP32."""
        job, misses = self._job, list[str]()
        graph = self._graph(self._nearer_before())
        made, verdict = self._built(graph)
        while graph is not None and verdict is not None and not verdict.passed:
            search = job.recipe.lower and job.spec.accuracy.fallback and graph.error > 0
            if not search or len(misses) == _SEARCHES:
                plan_accuracy.refuse(job, verdict, bool(misses), builds=len(misses))
            nearer = plan_accuracy.nearer(verdict, graph.error)
            misses.append(
                f"plan: {verdict.failures[0]}; its graph was converted again, with a relative L2 "
                f"of at most {nearer:g} instead of {graph.error:.3g}"
            )
            try:
                graph = self._graph(nearer)
                made, its_verdict = self._built(graph)
            except InputError:  # so near it does not come, or nothing of the precision is left
                plan_accuracy.refuse(job, verdict, True, builds=len(misses) - 1)
                raise
            verdict = its_verdict
        return replace(made, notes=(*misses, *made.notes))

    def _nearer_before(self) -> float | None:
        """Give what the last build came to, if it began with the same: it need not search again."""
        before = self._stages.before("conversion")
        if NEARER not in before:
            return None
        nearer = float(before[NEARER])
        return nearer if self._conversion(nearer).inputs == before else None

    def _built(self, graph: Graph | None) -> tuple[Made, GateReport | None]:
        """And the verdict on the plan, where one was run."""
        if graph is None:
            return self._to_convert(), None
        job, why_not = self._job, plan_accuracy.why_not(self._job)
        stage = self._plan_stage(graph)
        kept = self._plan_beside_cases(stage, graph)
        if kept is None:
            if not why_not:
                self._stages.follows("accuracy", "plan")
            return Made(*self._recorded(), artifact_to_come(job), graph.notes), None
        artifact, (cases, rows) = artifact_of_plan(job, kept), self._recorded()
        notes = (*graph.notes, *artifact.notes)
        why_not = why_not or rows.random
        if why_not:
            return Made(cases, rows, artifact, (*notes, plan_accuracy.not_compared(why_not))), None
        asked = served_cases(cases, artifact.served(self._signature))
        found = self._accuracy(stage, artifact.files[job.target.filename], asked)
        verdict = plan_accuracy.judge_plan(job, found, asked)
        told = plan_accuracy.told(found, verdict, asked)
        return Made(cases, rows, artifact, (*notes, *told), found), verdict

    def _accuracy(self, plan: Stage, file: Content, asked: Sequence[Case]) -> Mapping[str, Any]:
        """Get what the plan's run on the GPU gave; empty in a dry run that would have to run it."""
        job = self._job
        assert isinstance(file, Path)  # it was built

        def measure_into(_: Path) -> Mapping[str, Any]:
            return plan_accuracy.measure_plan(job, file, asked, self._process, self._tell)

        kept = self._stages.result(accuracy_stage(plan, self._asks), measure_into, self._published)
        return {} if kept is None else kept.about

    def _plan_beside_cases(self, stage: Stage, graph: Graph) -> Kept | None:
        answers: list[Future[Any]] = []
        with ThreadPoolExecutor(1) as pool:

            def on_build() -> None:
                if not answers:
                    answers.append(pool.submit(self._recorded_meanwhile))
                    answers[0].add_done_callback(self._stop_if_failed)

            try:
                kept = self._plan(stage, graph, on_build)
            except TritonsmithError:
                for failed in answers:
                    failed.result()  # what stopped the build
                raise
            for answer in answers:
                answer.result()
        return kept

    def _recorded_meanwhile(self) -> tuple[tuple[Case, ...], Rows]:
        # Kernels are timed now: who times them goes first. ONNX Runtime's threads inherit this.
        with suppress(OSError):  # not everywhere is a thread's own
            os.setpriority(os.PRIO_PROCESS, get_native_id(), _BEHIND)
        return self._recorded()

    def _stop_if_failed(self, answer: Future[Any]) -> None:
        if answer.exception() is not None:
            self._process.stop()

    def _plan_stage(self, graph: Graph) -> Stage:
        job, release = self._job, self._job.release
        assert release is not None  # or no plan is compiled
        passed = graph.model != self._source.model
        digests = {f"converted {n}" if passed else n: d for n, d in graph.digests.items()}
        return plan_stage(job, digests, self._profile_set, engine_options(job), release)

    def _plan(self, stage: Stage, graph: Graph, on_build: Callable[[], None]) -> Kept | None:
        """None in a dry run that would have to build it."""
        job = self._job

        def tell(stage: str, detail: str, fraction: float | None) -> None:
            if fraction is not None:  # the graph was parsed: TensorRT can take all its nodes
                on_build()
            self._tell(stage, detail, fraction)

        def compile_into(folder: Path) -> Mapping[str, Any]:
            return compile_plan(job, graph.model, self._profile_set, self._process, folder, tell)

        return self._stages.result(stage, compile_into, self._published)

    def _conversion(self, nearer: float | None) -> Stage:
        job, digests = self._job, self._source.digests
        return conversion_stage(job, digests, self._asks, nearer=nearer)

    def _converted(self, nearer: float | None) -> Graph | None:
        job, source = self._job, self._source

        def convert_into(folder: Path) -> Mapping[str, Any]:
            self._refuse_unsupported()
            cases, rows = self._recorded()
            if rows.random:
                raise InputError(
                    f"{rows.random}: what {job.spec.precision} does to it cannot be measured; "
                    "build it in fp32, without simplify and sparse"
                )
            return convert_model(job, source.model, cases, folder, self._tell, nearer)

        kept = self._stages.result(self._conversion(nearer), convert_into)
        return None if kept is None else converted_graph(kept, source)

    def _refuse_unsupported(self) -> None:
        job = self._job
        release = job.release
        if release is None:
            return
        self._tell("precheck", f"asking {release}", None)
        nodes = self._process.unsupported(self._source.model, tuple(job.plugins.values()))
        if nodes:
            raise refusal(str(release), job.source, nodes)

    def _recorded(self) -> tuple[tuple[Case, ...], Rows]:
        """Raise InputError where the user asks for batches, and rows depend on each other."""
        if self._cases is None:
            self._cases = self._record()
        asked = self._job.spec.batching and self._job.spec.batching.max
        if asked:
            refuse_dependent(asked, self._cases[1])
        return self._cases

    def _record(self) -> tuple[tuple[Case, ...], Rows]:
        file = self._file

        def ask() -> tuple[tuple[Case, ...], Rows]:
            self._tell("cases", "asking ONNX Runtime for reference answers", None)
            return record_cases(
                file.path,
                file.proto,
                self._signature,
                self._profile_set,
                self._samples,
                self._exact,
            )

        def record_into(folder: Path) -> Mapping[str, Any]:
            cases, rows = ask()
            (folder / _CASES).write_bytes(write_cases(cases))
            return {"rows": asdict(rows)}

        kept = self._stages.result(self._asks, record_into)
        # A dry run keeps nothing, but needs some for the config.
        return (
            ask()
            if kept is None
            else (load_cases(kept.folder / _CASES), Rows(**kept.about["rows"]))
        )
