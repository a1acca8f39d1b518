"""The passes of a model: its precision put into the graph, measured against the original."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonsmith_generator.accuracy.gate import limits_for
from tritonsmith_generator.onnx_model.case_file import Case
from tritonsmith_generator.onnx_model.onnx_file import read
from tritonsmith_generator.passes import PassReport
from tritonsmith_generator.passes.recipe import precisions_of
from tritonsmith_generator.precision.search import Converted, Search, convert
from tritonsmith_generator.stages.graph import Tell
from tritonsmith_generator.stages.job import Job

__all__ = ["convert_model"]


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
    executor, version = job.executor
    limits = limits_for(spec.precision, spec.accuracy.limit)
    if nearer is not None:
        limits = replace(limits, relative_l2=nearer)
    inputs = [case.inputs for case in cases]
    search = Search(model, inputs, spec.precision, executor, version, limits, job.pass_options)
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


def _pass_notes(reports: Sequence[PassReport]) -> Iterator[str]:
    """Yield what each pass did; nothing of one that had nothing to do or to say."""
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
