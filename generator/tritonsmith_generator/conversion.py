"""The passes of a model: its precision put into the graph, measured against the original."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonsmith_generator import devices
from tritonsmith_generator.accuracy import GateReport, limits_for
from tritonsmith_generator.builder_options import BuilderOptions
from tritonsmith_generator.cases import Case
from tritonsmith_generator.job import Job
from tritonsmith_generator.onnxfile import OnnxFile, read
from tritonsmith_generator.passes import Options, PassReport, Samples, for_precision
from tritonsmith_generator.passes.fallback import Converted, Search, convert
from tritonsmith_generator.passes.recipe import Executor
from tritonsmith_generator.targets import release_of
from tritonsmith_generator.timingcache import timing_cache_path

__all__ = ["Conversion", "convert_model", "samples_of"]


@dataclass(frozen=True)
class Conversion:
    """What is built: the graph, what the builder is told, and what the passes did, in sentences."""

    file: OnnxFile
    builder: BuilderOptions
    notes: tuple[str, ...] = ()


def samples_of(job: Job, source: str | None) -> Samples | None:
    """The user's samples; a path in the spec is relative to the spec's folder."""
    if source is None:
        return None
    path = job.folder / source
    return Samples(str(path) if path.exists() or ":" not in source else source)


def convert_model(
    job: Job, file: OnnxFile, cases: Sequence[Case], work: Path, tell: Callable[[str, str], None]
) -> Conversion:
    """Run the passes that the spec's precision needs, and the accuracy gate behind them.

    The gate compares the result in ONNX Runtime with the recorded answers of the original; where
    it fails, nodes are kept in FP32 until it passes, if the spec allows that. Raises InputError
    where it never passes, with the precision to try next.
    """
    spec = job.spec
    options = Options(
        keep=spec.keep,
        samples=samples_of(job, spec.calibration or spec.accuracy.samples),
        simplify=spec.simplify,
        sparse=spec.sparse,
    )
    executor, version = _executor(job)
    recipe = for_precision(spec.precision, executor, version, options)
    builder = _builder(job, recipe.builder)
    if not recipe.passes:
        return Conversion(file, builder)
    limits = limits_for(spec.precision, spec.accuracy.limit)
    inputs = [case.inputs for case in cases]
    search = Search(file.path, inputs, spec.precision, executor, version, limits, options)
    folder = work / "passes"
    folder.mkdir()

    def on_trial(trial: int, kept: int) -> None:
        detail = f"trial {trial + 1}, {kept} nodes kept in FP32" if trial else spec.precision
        tell("passes", detail)

    converted = convert(search, folder, spec.accuracy.fallback, on_trial)
    converted.gate.raise_if_failed()
    notes = (*_pass_notes(converted.passes.reports), *_gate_notes(converted))
    return Conversion(read(converted.passes.model), builder, notes)


def _executor(job: Job) -> tuple[Executor, str]:
    release = release_of(job.target, job.toolchain)
    if release is None:
        return "onnxruntime", job.tools["onnxruntime"]
    return release.library, ".".join(map(str, release.version))


def _builder(job: Job, recipe: BuilderOptions) -> BuilderOptions:
    """The user's builder options, with what the precision asks for and a timing cache."""
    options = replace(job.spec.builder, precision=recipe.precision)
    if recipe.sparse_weights:
        options = replace(options, sparse_weights=True)
    release, gpus = release_of(job.target, job.toolchain), devices.gpus()
    if release is not None and gpus:
        cache = timing_cache_path(job.toolchain.timings, release, gpus[0])
        options = replace(options, timing_cache=cache)
    return replace(options, plugins=tuple(job.folder / path for path in options.plugins))


def _pass_notes(reports: Sequence[PassReport]) -> Iterator[str]:
    for report in reports:
        counts = {"lowered": report.lowered, "Q": report.quantize, "DQ": report.dequantize}
        found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        kept = f", {len(report.kept)} nodes kept in FP32" if report.kept else ""
        size = f"{report.bytes_before / 1e6:.2f} to {report.bytes_after / 1e6:.2f} MB"
        yield f"{report.name}: {found or 'no node changed its type'}{kept}; {size}"
        yield from (f"{report.name}: {note}" for note in report.notes)


def _gate_notes(converted: Converted) -> Iterator[str]:
    report: GateReport = converted.gate
    if converted.kept:
        yield (
            f"kept in FP32 so that the accuracy gate passes ({converted.trials} trials): "
            f"{', '.join(converted.kept)}"
        )
    for name, metrics in report.outputs.items():
        yield (
            f"accuracy of '{name}': relative L2 {metrics.relative_l2:.1e}, "
            f"largest difference {metrics.max_abs:.1e}, top-1 {metrics.top1:.1%}"
        )
