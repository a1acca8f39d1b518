"""The accuracy gate on the finished plan, run on the GPU that it was built for.

The graph before it may have passed in ONNX Runtime: TensorRT fuses layers and chooses kernels, and
TensorRT 8.6 chooses their precision as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tritonsmith_generator.accuracy import Metrics, judge, limits_for, measure
from tritonsmith_generator.builder_options import BuilderOptions
from tritonsmith_generator.cases import Case
from tritonsmith_generator.conversion import Tell, executor_of
from tritonsmith_generator.engineprocess import EngineProcess
from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.job import Job
from tritonsmith_generator.passes.recipe import precisions_of
from tritonsmith_generator.plananswers import PlanAnswers, PlanQuestion

__all__ = ["judge_plan", "measure_plan", "not_compared", "why_not"]

_SKIP = "accuracy.plan: false publishes the plan without this comparison"

# Options of plans that do not run as they are, or not here.
_NOT_RUN: Mapping[str, str] = {
    "strip_plan": "its weights were left out",
    "weight_streaming": "how much of its weights stay in host memory is said where it is served",
    "runtime_platform": "it is for another system",
    "dla_core": "it is for a deep-learning accelerator",
}


def why_not(job: Job, builder: BuilderOptions) -> str:
    """Why this job's plan is not run here; empty if it is."""
    if not job.spec.accuracy.plan:
        return "accuracy.plan is false"
    if not job.tools.get("gpu"):
        return "there is no GPU here; gen-repo check --live does it where one is"
    reasons = (f"builder.{name}: {why}" for name, why in _NOT_RUN.items() if getattr(builder, name))
    return next(reasons, "")


def not_compared(why: str) -> str:
    """What the summary says of a plan that was not run."""
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


def judge_plan(
    job: Job, builder: BuilderOptions, found: Mapping[str, Any], cases: Sequence[Case]
) -> Iterator[str]:
    """What ``measure_plan`` found, if anything, in sentences for the summary.

    Raises InputError, with the precision to try next, where a limit is not kept.
    """
    if not found:
        return
    if "skipped" in found:
        yield not_compared(found["skipped"])
        return
    precision = job.spec.precision
    if precision == "fp32" and builder.tf32:  # asked for, and it is nothing else
        precision = "tf32"
    metrics = {name: Metrics(**values) for name, values in found["metrics"].items()}
    limits = limits_for(precision, job.spec.accuracy.limit)
    report = judge(metrics, cases[0].outputs, limits, precision)
    available = precisions_of(*executor_of(job))
    report.raise_if_failed(
        what="the plan on the GPU: ", sparse=job.spec.sparse, available=available
    )
    yield from (f"plan: {line}" for line in report.lines())
    if outside := found["outside"]:
        yield f"plan: {outside} of {len(cases)} cases were not compared: no profile allows them"
