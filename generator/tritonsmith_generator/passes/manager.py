"""Run passes one after the other, each in a folder of its own, and check what they promise."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes.base import Condition, Pass, PassReport

__all__ = ["PassProgress", "PassesReport", "run"]


@dataclass(frozen=True)
class PassProgress:
    """Which pass starts now: ``step`` of ``steps``, from 0."""

    name: str
    step: int
    steps: int


@dataclass(frozen=True)
class PassesReport:
    """The final model (the first one where no pass changed it) and each pass's report."""

    model: Path
    reports: tuple[PassReport, ...]


def run(
    passes: Sequence[Pass],
    model: Path,
    workdir: Path,
    on_progress: Callable[[PassProgress], None] = lambda _: None,
) -> PassesReport:
    """Apply the passes to ``model``, which stays as it is; ``workdir`` is an existing folder.

    Only the last pass's files are left in ``workdir``. Raises InputError, HostError for what is
    missing on this machine; both say which passes had gone before.
    """
    current = model
    reports: list[PassReport] = []
    superseded: Path | None = None
    for step, each in enumerate(passes):
        on_progress(PassProgress(each.name, step, len(passes)))
        where = _where(each, [report.name for report in reports])
        _check(current, each.requires, f"{where} needs")
        folder = workdir / f"{step:02d}-{each.name}"
        folder.mkdir()
        try:
            result = each.apply(current, folder)
        except (InputError, HostError) as exc:
            raise type(exc)(f"{where}: {exc}") from exc
        _check(result.model, each.ensures, f"{where} did not make sure of")
        reports.append(result.report)
        if result.model != current:
            if superseded:  # intermediate models of 2 GB and more add up
                shutil.rmtree(superseded)
            superseded = folder
        else:
            shutil.rmtree(folder)
        current = result.model
    return PassesReport(current, tuple(reports))


def _where(each: Pass, before: Sequence[str]) -> str:
    return f"pass {each.name}" + (f" (after {', '.join(before)})" if before else "")


def _check(model: Path, conditions: Sequence[Condition], what: str) -> None:
    if not conditions:
        return
    proto = onnx_file.read(model).proto
    for condition in conditions:
        if found := condition.broken(proto):
            raise InputError(f"{what}: {condition}; but {found}")
