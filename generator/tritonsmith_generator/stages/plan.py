"""The files of a version directory: the ONNX model itself, or the plan that is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tritonsmith_client import dtypes
from tritonsmith_generator.engine.process import EngineProcess
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.onnx_model.profiles import ProfileSet
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.repository.changes import Content
from tritonsmith_generator.spec.builder_options import Precision
from tritonsmith_generator.stages.graph import Graph, Tell
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.stages.stage import Kept
from tritonsmith_generator.trt.layers import needs_proof, prove_precision, unproven
from tritonsmith_generator.trt.request import EngineOptions, EngineReport, EngineRequest, Progress
from tritonsmith_generator.trt.timing_cache import timing_cache_path

__all__ = [
    "Artifact",
    "artifact_of_graph",
    "artifact_of_plan",
    "artifact_to_come",
    "compile_plan",
    "engine_options",
]


@dataclass(frozen=True)
class Artifact:
    """Files by name, and the data types of inputs and outputs where a plan has its own.

    ``notes`` says how it was made, ``warnings`` what should be looked after.
    ``compute_capability`` is that of the GPU that a plan was built on.
    """

    files: Mapping[str, Content]
    types: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    compute_capability: str | None = None

    def served(self, signature: Signature) -> Signature:
        """Return the signature with the artifact's data types.

        Raises InputError for a dropped tensor.
        """
        return Signature(
            tuple(self._served(t) for t in signature.inputs),
            tuple(self._served(t) for t in signature.outputs),
        )

    def _served(self, tensor: Tensor) -> Tensor:
        if not self.types:
            return tensor
        if tensor.name not in self.types:
            raise InputError(f"TensorRT dropped '{tensor.name}', which no node uses: remove it")
        return replace(tensor, dtype=dtypes.from_wire(self.types[tensor.name]))


def artifact_of_plan(job: Job, kept: Kept) -> Artifact:
    """Return the files of a version that holds the result of the plan stage."""
    about = kept.about
    files = {job.target.filename: kept.folder / job.target.filename, **job.plugins}
    notes, warnings = tuple(about["notes"]), tuple(about.get("warnings", ()))
    return Artifact(files, about["types"], notes, warnings, about["compute_capability"])


def artifact_of_graph(job: Job, graph: Graph) -> Artifact:
    """Return the files of a version that holds the ONNX model itself."""
    return Artifact({job.target.filename: graph.model, **graph.weights})


def artifact_to_come(job: Job) -> Artifact:
    """In a dry run: an empty file stands for what isn't there yet."""
    return Artifact({job.target.filename: b""})


def engine_options(job: Job) -> EngineOptions:
    """Return the user's builder options, with what the precision asks for and a timing cache."""
    options = EngineOptions.of(job.spec.builder, job.spec.precision)
    if job.recipe.sparse_weights:
        options = replace(options, sparse_weights=True)
    gpus_here = visible_gpus()
    if job.release is not None and gpus_here:
        cache = timing_cache_path(job.toolchain.timings, job.release, gpus_here[0])
        options = replace(options, timing_cache=cache)
    return replace(options, plugins=tuple(job.folder / path for path in options.plugins))


def compile_plan(
    job: Job,
    model: Path,
    profile_set: ProfileSet,
    process: EngineProcess,
    folder: Path,
    tell: Tell,
) -> Mapping[str, Any]:
    """Build the plan into the folder, and prove its precision where a GPU can open it."""
    done = _Fraction()

    def on_progress(progress: Progress) -> None:
        tell("plan", progress.phase, done.after(progress))

    request = EngineRequest(
        library=job.target.library,
        onnx=model,
        plan=folder / job.target.filename,
        profiles=profile_set.profiles,
        options=engine_options(job),
        values=profile_set.values,
    )
    tell("plan", "starting the builder", None)
    report = process.build(request, on_progress)
    layers, precision = report.engine_layers, job.spec.precision
    doubt = prove_precision(layers, precision) if layers is not None else None
    ends = (*report.signature.inputs, *report.signature.outputs)
    return {
        "compute_capability": report.compute_capability,
        "types": {tensor.name: tensor.dtype.wire for tensor in ends},
        "notes": list(_notes(report, precision)),
        "warnings": [] if doubt is None else [doubt],
        "parts": dict(report.parts),
    }


def _notes(report: EngineReport, precision: Precision) -> tuple[str, ...]:
    size = f"{report.plan_bytes / 1e6:.2f} MB"
    built = f"plan: {size} by {report.library} {report.version} in {report.seconds:.1f} s"
    notes = [built]
    if report.engine_layers is not None:
        notes.append(f"plan: layers by precision: {report.engine_layers}")
    elif needs_proof(precision):
        notes.append(unproven(precision, "it takes a GPU to look into the plan"))
    if report.deferred_plugins and report.library == "tensorrt":
        notes.append(
            f"plan: {', '.join(report.deferred_plugins)} registers nothing when it is opened, and "
            "NVIDIA's tritonserver does no more than that: use REGISTER_TENSORRT_PLUGIN in it, or "
            "serve with the embedded server, which asks it for its creators"
        )
    return tuple(notes)


class _Fraction:
    """How much is done, from TensorRT's nested phases: each one fills a step of the one around."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, int | None]] = {}

    def after(self, progress: Progress) -> float | None:
        if progress.state == "finish":
            self._open.pop(progress.phase, None)
        else:
            self._open[progress.phase] = (progress.step, progress.steps)
        fraction, step_size = 0.0, 1.0
        for step, steps in self._open.values():
            if not steps:
                break
            step_size /= steps
            fraction += step_size * min(step, steps)
        return min(fraction, 1.0) if self._open else None
