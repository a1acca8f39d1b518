"""The files of a version directory: the ONNX model itself, or the plan that is built from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tritonsmith_client import dtypes
from tritonsmith_generator.cachefolder import cache_folder, make_once
from tritonsmith_generator.conversion import Conversion
from tritonsmith_generator.engine import EngineReport, EngineRequest, Progress
from tritonsmith_generator.enginelayers import prove_precision
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.job import Job
from tritonsmith_generator.profiles import Shaping
from tritonsmith_generator.repository import Content
from tritonsmith_generator.signature import Signature, Tensor

__all__ = ["Artifact", "build_artifact"]

Tell = Callable[[str, str, float | None], None]

_REPORT = "report.json"


@dataclass(frozen=True)
class Artifact:
    """Files by name, and the data types of inputs and outputs where a plan has its own.

    ``compute_capability`` is that of the GPU that a plan was built on.
    """

    files: Mapping[str, Content]
    types: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    compute_capability: str | None = None

    def served(self, signature: Signature) -> Signature:
        """The signature with the artifact's data types. Raises InputError for a dropped tensor."""
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


def build_artifact(
    job: Job, conversion: Conversion, shaping: Shaping, dry_run: bool, tell: Tell
) -> Artifact:
    """The model's files; a plan is compiled unless one with the same key is in the cache.

    A dry run compiles nothing: an empty file stands for a plan that isn't there yet.
    """
    name, file = job.target.filename, conversion.file
    if not job.target.compiled:
        weights = {inner: file.path.parent / inner for inner in file.external}
        return Artifact({name: file.path, **weights})
    home = cache_folder("plans") / job.artifact_key
    if dry_run and not (home / name).exists():
        return Artifact({name: b""})
    make_once(home, lambda new: _compile(job, conversion, shaping, new, tell))
    report = json.loads((home / _REPORT).read_text())
    built_on = report["compute_capability"]
    return Artifact({name: home / name}, report["types"], tuple(report["notes"]), built_on)


def _compile(job: Job, conversion: Conversion, shaping: Shaping, folder: Path, tell: Tell) -> None:
    done = _Fraction()

    def on_progress(progress: Progress) -> None:
        tell("plan", progress.phase, done.after(progress))

    request = EngineRequest(
        library="tensorrt_rtx" if job.target.name == "tensorrt_rtx" else "tensorrt",
        onnx=conversion.file.path,
        plan=folder / job.target.filename,
        profiles=shaping.profiles,
        options=conversion.builder,
        values=shaping.values,
    )
    tell("plan", "starting the builder", None)
    report = job.toolchain.build_engine(request, on_progress)
    if report.engine_layers is not None:  # a GPU is needed to look into a plan
        prove_precision(report.engine_layers, job.spec.precision)
    ends = (*report.signature.inputs, *report.signature.outputs)
    about = {
        "library": report.library,
        "version": report.version,
        "seconds": round(report.seconds, 3),
        "compute_capability": report.compute_capability,
        "types": {tensor.name: tensor.dtype.wire for tensor in ends},
        "notes": list(_notes(report)),
    }
    (folder / _REPORT).write_text(json.dumps(about))


def _notes(report: EngineReport) -> tuple[str, ...]:
    size = f"{report.plan_bytes / 1e6:.2f} MB"
    built = f"plan: {size} by {report.library} {report.version} in {report.seconds:.1f} s"
    if report.engine_layers is None:
        return (built,)
    counts = ", ".join(f"{n} in {name}" for name, n in report.engine_layers.precisions.items())
    return (built, f"plan: layers by precision: {counts}")


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
