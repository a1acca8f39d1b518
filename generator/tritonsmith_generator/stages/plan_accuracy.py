"""The accuracy gate on the finished plan, run on the GPU that it was built for.

The graph before it may have passed in ONNX Runtime: TensorRT fuses layers and chooses kernels, and
TensorRT 8.6 chooses their precision as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tritonsmith_generator.accuracy.gate import judge, limits_for
from tritonsmith_generator.accuracy.metrics import Metrics, measure
from tritonsmith_generator.accuracy.report import GateReport
from tritonsmith_generator.engine.process import EngineProcess
from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.onnx_model.case_file import Case
from tritonsmith_generator.passes.recipe import precisions_of
from tritonsmith_generator.stages.graph import Tell
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.trt.request import PlanAnswers, PlanQuestion

__all__ = ["judge_plan", "measure_plan", "nearer", "not_compared", "refuse", "told", "why_not"]

_SKIP = "accuracy.plan: false publishes the plan without this comparison"

# Options of plans that do not run as they are, or not here.
_NOT_RUN: Mapping[str, str] = {
    "strip_plan": "its weights were left out",
    "weight_streaming": "how much of its weights stay in host memory is said where it is served",
    "runtime_platform": "it is for another system",
    "dla_core": "it is for a deep-learning accelerator",
}


def why_not(job: Job) -> str:
    """Why this job's plan is not run here; empty if it is."""
    if not job.spec.accuracy.plan:
        return "accuracy.plan is false"
    if not job.tools.get("gpu"):
        return "there is no GPU here; gen-repo check --live does it where one is"
    builder = job.spec.builder
    reasons = (f"builder.{name}: {why}" for name, why in _NOT_RUN.items() if getattr(builder, name))
    return next(reasons, "")


def not_compared(why: str) -> str:
    """Return what the summary says of a plan that was not run."""
    return f"plan: its answers were not compared with ONNX Runtime's: {why}"


def measure_plan(
    job: Job, plan: Path, cases: Sequence[Case], process: EngineProcess, tell: Tell
) -> Mapping[str, Any]:
    """Run the plan on the cases, in its data types: ``metrics`` by output, or why ``skipped``.

    ``outside`` counts the cases that no profile allows: they are left out. Raises HostError where
    the plan does not run, InputError where its outputs are not the model's.
    """
    tell("accuracy", "running the plan on the GPU", None)
    answers = _ask(job, plan, cases, process, tell)
    if answers.skipped:
        return {"skipped": answers.skipped}
    asked = zip(cases, answers.outputs, strict=True)
    pairs = [(case.outputs, outputs) for case, outputs in asked if outputs is not None]
    if not pairs:
        return {"skipped": "no profile allows the shapes of any of the samples"}
    try:
        metrics = {
            name: asdict(
                measure([want[name] for want, _ in pairs], [got[name] for _, got in pairs])
            )
            for name in pairs[0][0]
        }
    except InputError as exc:
        raise InputError(
            f"the plan on the GPU, compared with ONNX Runtime: {exc}; {_SKIP}"
        ) from exc
    return {"metrics": metrics, "outside": len(cases) - len(pairs)}


def _ask(
    job: Job, plan: Path, cases: Sequence[Case], process: EngineProcess, tell: Tell
) -> PlanAnswers:
    inputs, plugins = tuple(case.inputs for case in cases), tuple(job.plugins.values())
    question = PlanQuestion(job.target.library, plan, inputs, plugins)
    try:
        return process.ask(question, lambda progress: tell("accuracy", progress.phase, None))
    except HostError as exc:
        raise HostError(
            f"the plan was built, but it does not run on this GPU: {exc}\nNothing was published. "
            "The plan is kept: free memory of the GPU if that is what it lacks, and build again; "
            f"{_SKIP}"
        ) from exc


def judge_plan(job: Job, found: Mapping[str, Any], cases: Sequence[Case]) -> GateReport | None:
    """Return the verdict on what ``measure_plan`` found; None where it found nothing to compare."""
    if "metrics" not in found:
        return None
    precision = job.spec.precision
    if precision == "fp32" and job.spec.builder.tf32:  # asked for, and it is nothing else
        precision = "tf32"
    metrics = {name: Metrics(**values) for name, values in found["metrics"].items()}
    limits = limits_for(precision, job.spec.accuracy.limit)
    return judge(metrics, cases[0].outputs, limits, precision)


def refuse(job: Job, verdict: GateReport, searched: bool, builds: int) -> None:
    """Raise InputError, with the precision to try next, where a limit is not kept.

    ``searched`` says that graphs with more nodes kept in FP32 were looked for, ``builds`` how many
    of them made a plan.
    """
    text = "no nodes were found that make up for it when they are kept in FP32"
    text += f" ({builds} more built)" if builds else ""
    verdict.raise_if_failed(
        what="the plan on the GPU: ",
        sparse=job.spec.sparse,
        searched=text if searched else "",
        available=precisions_of(*job.executor),
    )


def told(
    found: Mapping[str, Any], verdict: GateReport | None, cases: Sequence[Case]
) -> Iterator[str]:
    """Yield what ``measure_plan`` found, if anything, in sentences for the summary."""
    if "skipped" in found:
        yield not_compared(found["skipped"])
    if verdict is not None:
        yield from (f"plan: {line}" for line in verdict.lines())
        if outside := found["outside"]:
            yield f"plan: {outside} of {len(cases)} cases were not compared: no profile allows them"


def nearer(verdict: GateReport, error: float) -> float:
    """Return the relative L2 error that the next conversion has to keep so that its plan passes.

    ``error`` is that of the graph whose plan failed. TensorRT fuses and orders what it computes in
    ways of its own, so that a plan is further off than its graph, by a factor that is much the same
    for the next one. A limit that is no distance says only that it has to be less.
    """
    shares = [
        _MARGIN * failure.limit / failure.value
        for failure in verdict.failures
        if failure.metric in _DISTANCES and math.isfinite(failure.value)
    ]
    return float(f"{error * min([_HALF, *shares]):.3g}")


_MARGIN = 0.8
_HALF = 0.5
_DISTANCES = frozenset({"relative_l2", "max_abs"})
