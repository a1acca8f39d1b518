"""The passes of a model: its precision put into the graph, measured against the original."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonsmith_generator.accuracy.gate import limits_for
from tritonsmith_generator.engine.resolve import release_of
from tritonsmith_generator.host import gpus as devices
from tritonsmith_generator.onnx_model.case_file import Case
from tritonsmith_generator.onnx_model.onnx_file import read
from tritonsmith_generator.passes import Options, PassReport, Samples, for_precision
from tritonsmith_generator.passes.recipe import Executor, Recipe, precisions_of
from tritonsmith_generator.precision.search import Converted, Search, convert
from tritonsmith_generator.spec.builder_options import BuilderOptions
from tritonsmith_generator.stages.graph import Tell
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.trt.timing_cache import timing_cache_path

__all__ = ["convert_model", "executor_of", "recipe_of", "samples_of"]


def samples_of(job: Job, source: str | None) -> Samples | None:
    """The user's samples; a path in the spec is relative to the spec's folder."""
    if source is None:
        return None
    path = job.folder / source
    if path.exists() or ":" not in source or ".py:" in source:
        return Samples(str(path))
    return Samples(source)


def recipe_of(job: Job) -> Recipe:
    """The passes that the spec's precision needs, and all that the builder is told."""
    executor, version = executor_of(job)
    recipe = for_precision(job.spec.precision, executor, version, _options(job))
    return replace(recipe, builder=_builder(job, recipe.builder))


def convert_model(
    job: Job,
    model: Path,
    cases: Sequence[Case],
    folder: Path,
    tell: Tell,
    nearer: float | None = None,
) -> Mapping[str, Any]:
    """Run the passes that the spec's precision needs, and the accuracy gate behind them.

    The gate compares the result in ONNX Runtime with the recorded answers of the original; where
    it fails, nodes are kept in FP32 until it passes, if the spec allows that. ``nearer`` is a
    relative L2 error to keep in the place of the spec's. ``folder`` is empty and gets the
    converted model. Raises InputError where the gate never passes, with the
    precision to try next.
    """
    spec = job.spec
    executor, version = executor_of(job)
    limits = limits_for(spec.precision, spec.accuracy.limit)
    if nearer is not None:
        limits = replace(limits, relative_l2=nearer)
    inputs = [case.inputs for case in cases]
    search = Search(model, inputs, spec.precision, executor, version, limits, _options(job))
    work = folder / "passes"
    work.mkdir()

    def on_trial(trial: int, kept: int) -> None:
        detail = f"trial {trial + 1}, {kept} nodes kept in FP32" if trial else spec.precision
        tell("passes", detail, None)

    converted = convert(search, work, spec.accuracy.fallback, on_trial)
    converted.gate.raise_if_failed(
        what="the converted graph: ",
        sparse=spec.sparse,
        others=converted.trials - 1 if converted.searched else None,
        available=precisions_of(executor, version),
    )
    notes = [*_pass_notes(converted.passes.reports), *_gate_notes(converted)]
    result = converted.passes.model
    name = _move(result, folder) if work in result.parents else None
    shutil.rmtree(work)
    return {"model": name, "notes": notes, "relative_l2": converted.gate.error}


def _move(model: Path, folder: Path) -> str:
    """Move the model and its weight files, which keep their places beside it."""
    for path in read(model).files:
        target = folder / path.relative_to(model.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return model.name


def _options(job: Job) -> Options:
    spec = job.spec
    return Options(
        keep=spec.keep,
        samples=samples_of(job, spec.range_samples),
        simplify=spec.simplify,
        sparse=spec.sparse,
        quantization=spec.quantization,
    )


def executor_of(job: Job) -> tuple[Executor, str]:
    """What runs the model, and its version."""
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
    """What each pass did; nothing of one that had nothing to do or to say."""
    for report in reports:
        if report.changed and (counts := ", ".join(_counts(report))):
            size = f"{report.bytes_before / 1e6:.2f} to {report.bytes_after / 1e6:.2f} MB"
            yield f"{report.name}: {counts}; {size}"
        yield from (f"{report.name}: {note}" for note in report.notes)


def _counts(report: PassReport) -> Iterator[str]:
    counts = {
        "lowered": report.lowered,
        "Q": report.quantize,
        "DQ": report.dequantize,
        "nodes left as they were": len(report.kept),
    }
    yield from (f"{count} {what}" for what, count in counts.items() if count)


def _gate_notes(converted: Converted) -> Iterator[str]:
    if converted.kept:
        yield (
            f"kept in FP32 so that the accuracy gate passes ({converted.trials} trials): "
            f"{', '.join(converted.kept)}"
        )
    yield from converted.gate.lines()
