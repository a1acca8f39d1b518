"""One model, from its source to its folder in the repository."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tritonsmith_generator.cachefolder import cache_folder
from tritonsmith_generator.cases import case_path, record_cases, served_cases, write_cases
from tritonsmith_generator.config import render_config
from tritonsmith_generator.engine import EngineReport, EngineRequest, Progress, build_engine
from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.events import Event, OnEvent
from tritonsmith_generator.inspection import CONFIG_NAME
from tritonsmith_generator.lock import FileRecord, LockedModel
from tritonsmith_generator.onnxfile import OnnxFile, read
from tritonsmith_generator.passes.tidy import Tidy
from tritonsmith_generator.precheck import Checked, precheck
from tritonsmith_generator.profiles import Shaping, derive_shaping
from tritonsmith_generator.repository import Change, Content, compare, publish
from tritonsmith_generator.serve.cache import make_once
from tritonsmith_generator.settings import config_for, served_signature
from tritonsmith_generator.signature import Signature

if TYPE_CHECKING:
    from tritonsmith_generator.pipeline import Job

__all__ = ["Built", "build_model"]


@dataclass(frozen=True)
class Built:
    """What was published, or would be; ``entry`` is the lock's new record."""

    version: int
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    entry: LockedModel | None


def build_model(
    job: Job,
    repository: Path,
    locked: LockedModel | None,
    dry_run: bool,
    force: bool,
    on_event: OnEvent,
) -> Built:
    """Check, convert, compile, record cases, render and publish.

    Raises InputError for the model, the spec or a file that was changed by hand; HostError for
    what this machine lacks. Nothing is published then.
    """

    def tell(stage: str, detail: str, fraction: float | None = None) -> None:
        on_event(Event(job.name, stage, detail, fraction))

    tell("precheck", str(job.source))
    checked = precheck(job.source, job.target.name)
    shaping = derive_shaping(checked.signature, job.spec)
    served = served_signature(checked.signature, job.target)
    config, notes = config_for(job.name, job.target, served, shaping, job.spec)
    with _work_folder() as work:
        file = _tidy(checked, work)
        tell("cases", "asking ONNX Runtime for reference answers")
        cases = record_cases(file.path, file.proto, checked.signature, shaping)
        artifact = _artifact(job, file, checked.signature, shaping, dry_run, tell)
        number = _version(job, repository / job.name, locked, artifact)
        cases_name = str(case_path(Path(), number))
        files: dict[str, Content] = {
            **{f"{number}/{name}": content for name, content in artifact.items()},
            cases_name: write_cases(served_cases(cases, served)),
            CONFIG_NAME: render_config(config, notes, _header(job)).encode(),
        }
        changes = compare(repository, job.name, files, locked.files if locked else {})
        _refuse_conflicts(changes, force)
        if dry_run:
            return Built(number, changes, checked.warnings, None)
        tell("publish", f"version {number}")
        publish(repository, job.name, files)
    folder = repository / job.name
    entry = LockedModel(
        key=job.key,
        artifact=job.artifact_key,
        target=job.target.name,
        version=number,
        source=job.spec.onnx or job.spec.torch or "",
        sources=job.sources,
        files={name: FileRecord.of(folder / name) for name in files},
        tools=job.tools,
    )
    return Built(number, changes, checked.warnings, entry)


def _tidy(checked: Checked, work: Path) -> OnnxFile:
    if not checked.untidy:
        return checked.file
    return read(Tidy().apply(checked.file.path, work).model)


Tell = Callable[[str, str, float | None], None]


def _artifact(
    job: Job, file: OnnxFile, signature: Signature, shaping: Shaping, dry_run: bool, tell: Tell
) -> Mapping[str, Content]:
    """The files of the version directory, by name. A dry run has no plan that wasn't built."""
    if not job.target.compiled:
        folder = file.path.parent
        weights = {name: folder / name for name in file.external}
        return {job.target.filename: file.path, **weights}
    home = cache_folder("plans") / job.artifact_key
    plan = home / job.target.filename
    if dry_run and not plan.exists():
        return {job.target.filename: b""}
    make_once(home, lambda new: _compile(job, file, signature, shaping, new, tell))
    return {job.target.filename: plan}


def _compile(
    job: Job, file: OnnxFile, signature: Signature, shaping: Shaping, folder: Path, tell: Tell
) -> None:
    done = _Fraction()

    def on_progress(progress: Progress) -> None:
        tell("plan", progress.phase, done.after(progress))

    request = EngineRequest(
        library="tensorrt_rtx" if job.target.name == "tensorrt_rtx" else "tensorrt",
        onnx=file.path,
        plan=folder / job.target.filename,
        profiles=shaping.profiles,
    )
    tell("plan", "starting the builder", None)
    report = build_engine(request, on_progress)
    _refuse_other_signature(served_signature(signature, job.target), report)
    about = {"library": report.library, "version": report.version, "seconds": report.seconds}
    (folder / "report.json").write_text(json.dumps({**about, "layers": report.layers}))


def _refuse_other_signature(meant: Signature, report: EngineReport) -> None:
    """The config is written from the ONNX file; a plan that differs from it would not load."""
    built = {t.name: t for t in (*report.signature.inputs, *report.signature.outputs)}
    for tensor in (*meant.inputs, *meant.outputs):
        engine = built.get(tensor.name)
        if engine is None:
            raise InputError(f"TensorRT dropped '{tensor.name}', which no node uses: remove it")
        if engine.dtype != tensor.dtype:
            raise InputError(
                f"'{tensor.name}' is {tensor.dtype} in the model, but {engine.dtype} in the plan "
                f"of {report.library} {report.version}: export the model with {engine.dtype}"
            )


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


def _version(
    job: Job, folder: Path, locked: LockedModel | None, artifact: Mapping[str, Content]
) -> int:
    """The version that the spec pins, the one that holds this artifact already, or the next."""
    if job.spec.version is not None:
        return job.spec.version
    if locked is not None and locked.artifact == job.artifact_key:
        return locked.version
    numbers = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] or [0]
    newest = max(numbers)
    versioned = {f"{newest}/{name}": content for name, content in artifact.items()}
    same = compare(folder.parent, folder.name, versioned, {})
    return newest if newest and all(c.action == "identical" for c in same) else newest + 1


def _refuse_conflicts(changes: tuple[Change, ...], force: bool) -> None:
    conflicts = [c for c in changes if c.action == "conflict"]
    pinned = [c for c in conflicts if c.path.split("/")[1].isdigit()]
    if pinned:
        raise InputError(
            f"{pinned[0].path} holds other bytes, and versions are immutable: take the version "
            "out of the spec (the next free one is used) or pin a new one"
        )
    if conflicts and not force:
        first = conflicts[0]
        raise InputError(
            f"{first.path}: {first.why}. Put the change into the spec (any field of ModelConfig "
            "goes under 'config'), move the file away, or replace it with --force"
        )


def _header(job: Job) -> tuple[str, ...]:
    return (
        f"Written by gen-repo (tritonsmith {version('tritonsmith')}). Change the spec, not this.",
        f"Source: {job.source.name}, SHA-256 {job.sources[job.source.name].sha256}",
    )


@contextmanager
def _work_folder() -> Iterator[Path]:
    home = cache_folder("work")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            yield Path(folder)
    except OSError as exc:
        raise HostError(f"cannot work in {home}: {exc.strerror or exc}") from exc
