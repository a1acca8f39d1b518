"""One model of a run: whether it is up to date, and if not, its build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tritonsmith_generator.engine.resolve import resolve
from tritonsmith_generator.engine.toolchain import Toolchain
from tritonsmith_generator.errors import TritonsmithError
from tritonsmith_generator.events import OnEvent
from tritonsmith_generator.repository.changes import Change
from tritonsmith_generator.repository.lock import FileRecord, LockedModel
from tritonsmith_generator.spec.schema import ModelSpec, resolve_source
from tritonsmith_generator.spec.targets import TargetKind

if TYPE_CHECKING:
    from tritonsmith_generator.stages.runner import StageReport

__all__ = ["ModelResult", "Update", "unchanged", "update"]


@dataclass(frozen=True)
class ModelResult:
    """How it went for one model. ``error`` is set exactly when the status is "failed".

    ``seconds`` is the time that the model took, not the time that it waited for its turn.
    ``stages`` says which of its stages ran, or would run in a dry run, and why; it is empty for a
    model that failed.
    """

    name: str
    status: Literal["built", "unchanged", "planned", "failed"]
    target: str = ""
    version: int = 0
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stages: tuple[StageReport, ...] = ()
    seconds: float = 0.0
    error: TritonsmithError | None = None


@dataclass(frozen=True)
class Update:
    """A model to bring up to date.

    Attributes:
        folder: where the spec's paths start.
        locked: what the repository holds of it; None if nothing is known.
        toolchain: where plans are compiled.
    """

    name: str
    spec: ModelSpec
    folder: Path
    repository: Path
    locked: LockedModel | None
    toolchain: Toolchain
    dry_run: bool = False
    force: bool = False

    @property
    def home(self) -> Path:
        """The model's folder in the repository."""
        return self.repository / self.name

    def compiles(self, target: TargetKind) -> bool:
        """Whether it is clear, before anything is read, that a plan has to be built here."""
        here = self.toolchain.compiles_here
        return target.compiled and here and self.locked is None and not self.dry_run


def unchanged(asked: Update) -> ModelResult | None:
    """Return the result if sizes and times alone tell that the model is up to date.

    Nothing is read, hashed or exported here: what might be out of date is left to ``update``.
    """
    locked, spec = asked.locked, asked.spec
    if locked is None or spec.onnx is None:
        return None
    try:
        home = resolve_source(spec.onnx, asked.folder).parent
        if not _untouched(home, locked.sources) or not _untouched(asked.home, locked.files):
            return None
        from tritonsmith_generator.stages.job import make_job  # not where all is to be built

        job = make_job(asked.name, spec, asked.folder, locked, asked.toolchain)
    except TritonsmithError:
        return None  # update meets it again
    return _unchanged(asked.name, locked) if locked.follows_from(job.key) else None


def update(asked: Update, on_event: OnEvent) -> tuple[ModelResult, LockedModel | None]:
    """Build the model if it is out of date; the lock's new entry comes with the result.

    Raises InputError and HostError; nothing is published then.
    """
    locked, target = asked.locked, resolve(asked.spec, asked.toolchain)
    with asked.toolchain.process(target.library) as process:
        if asked.compiles(target):
            process.prepare()  # TensorRT loads while the source is read and hashed
        from tritonsmith_generator.stages.job import make_job

        job = make_job(asked.name, asked.spec, asked.folder, locked, asked.toolchain)
        if locked and locked.follows_from(job.key) and _intact(asked.home, locked.files):
            return _unchanged(asked.name, locked), None
        from tritonsmith_generator.pipeline.model import build_model

        built = build_model(
            job, asked.repository, locked, asked.dry_run, asked.force, process, on_event
        )
    result = ModelResult(
        asked.name,
        "planned" if asked.dry_run else "built",
        job.target.name,
        built.version,
        built.changes,
        built.warnings,
        built.notes,
        built.stages,
    )
    return result, None if asked.dry_run else built.entry


def _untouched(home: Path, files: Mapping[str, FileRecord]) -> bool:
    """Whether no size and no time differs from the record's."""
    try:
        stats = [(record, (home / name).stat()) for name, record in files.items()]
    except OSError:
        return False
    return all((r.size, r.mtime_ns) == (s.st_size, s.st_mtime_ns) for r, s in stats)


def _intact(home: Path, files: Mapping[str, FileRecord]) -> bool:
    return all(record.still(home / name) for name, record in files.items())


def _unchanged(name: str, locked: LockedModel) -> ModelResult:
    from tritonsmith_generator.stages.runner import all_reused

    stages = all_reused(locked)
    return ModelResult(name, "unchanged", locked.target, locked.version, stages=stages)
