"""From a spec to a repository: what is out of date is built, checked and published.

A model is left alone when everything that its files follow from is as it was: the bytes of its
source, its part of the spec, and the tools. ``key`` in the lock is the hash of all that.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from tritonsmith_generator import devices
from tritonsmith_generator.cachefolder import cache_folder
from tritonsmith_generator.errors import InputError, TritonsmithError
from tritonsmith_generator.events import OnEvent, ignore
from tritonsmith_generator.lock import FileRecord, Lock, LockedModel, read_lock, write_lock
from tritonsmith_generator.repository import Change, exclusive
from tritonsmith_generator.spec import ModelSpec, Spec, resolve_source
from tritonsmith_generator.targets import TargetKind, release_of, resolve

__all__ = ["Job", "ModelResult", "build"]


# What the files of a version depend on, apart from the source's bytes and the tools.
_MAKING = frozenset(
    {"precision", "shapes", "keep", "calibration", "simplify", "sparse", "builder", "accuracy"}
)


@dataclass(frozen=True)
class ModelResult:
    """How it went for one model. ``error`` is set exactly when the status is "failed"."""

    name: str
    status: Literal["built", "unchanged", "planned", "failed"]
    target: str = ""
    version: int = 0
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    error: TritonsmithError | None = None


@dataclass(frozen=True)
class Job:
    """One model to build, with everything that its result follows from.

    ``folder`` is where the spec's paths start; ``sources`` are the files that are read, by path
    relative to the model file's folder.
    """

    name: str
    spec: ModelSpec
    target: TargetKind
    source: Path
    folder: Path
    sources: Mapping[str, FileRecord] = field(repr=False)
    tools: Mapping[str, str]

    @property
    def artifact_key(self) -> str:
        """Stands for the bytes of the version directory."""
        batching = self.spec.batching
        made = {
            "options": self.spec.model_dump(mode="json", include=set(_MAKING)),
            "batch": batching and batching.max,
            "tools": dict(self.tools),
        }
        return _hash(
            target=self.target.name,
            bytes={name: record.sha256 for name, record in self.sources.items()},
            made=made if self.target.compiled or self._converted else None,
        )

    @property
    def _converted(self) -> bool:
        """Whether passes make another graph of the source."""
        spec = self.spec
        return spec.precision not in ("fp32", "tf32") or spec.simplify or spec.sparse

    @property
    def key(self) -> str:
        """Stands for all files of the model."""
        return _hash(
            artifact=self.artifact_key,
            spec=self.spec.model_dump(mode="json", exclude={"onnx", "torch"}),
            tools=dict(self.tools),
        )


def build(
    spec: Spec,
    folder: Path,
    repository: Path,
    *,
    only: Collection[str] = (),
    dry_run: bool = False,
    force: bool = False,
    on_event: OnEvent = ignore,
) -> tuple[ModelResult, ...]:
    """Bring the repository up to date with the spec; ``folder`` is where its paths start.

    A model that fails does not stop the others, and its files stay as they were. ``dry_run``
    writes nothing and compiles nothing. ``force`` replaces files that were changed by hand.
    Models in the repository that the spec doesn't name are left alone.

    Raises HostError if the repository cannot be written; errors of single models are in the
    results.
    """
    unknown = set(only) - set(spec.models)
    if unknown:
        raise InputError(
            f"the spec has no model '{sorted(unknown)[0]}'; it has: {', '.join(spec.models)}"
        )
    results = []
    with nullcontext() if dry_run else exclusive(repository):
        lock = read_lock(repository)
        for name, model in spec.models.items():
            if only and name not in only:
                continue
            began = perf_counter()
            try:
                job = _job(name, model, folder, lock.models.get(name))
                result, entry = _update(job, repository, lock, dry_run, force, on_event)
            except TritonsmithError as exc:
                result, entry = ModelResult(name, "failed", error=exc), None
            if entry is not None:
                lock = lock.with_model(name, entry)
                write_lock(repository, lock)
            results.append(_timed(result, perf_counter() - began))
    return tuple(results)


def _job(name: str, spec: ModelSpec, folder: Path, locked: LockedModel | None) -> Job:
    target = resolve(spec)
    source = _source(name, spec, folder)
    sources = _sources(source, _sample_files(spec, folder), locked)
    _refuse_other_bytes(spec, source, sources)
    release = release_of(target)
    tools = {package: version(package) for package in ("tritonsmith", "onnx", "onnxruntime")}
    if release is not None:
        tools[release.library] = str(release)
        tools["gpu"] = ", ".join(sorted({gpu.compute_capability for gpu in devices.gpus()}))
    return Job(name, spec, target, source, folder, sources, tools)


def _refuse_other_bytes(spec: ModelSpec, source: Path, sources: Mapping[str, FileRecord]) -> None:
    """A flipped bit in a weight is still a valid model: only its digest tells."""
    if spec.sha256 is not None and sources[source.name].sha256 != spec.sha256:
        raise InputError(
            f"{source}: its SHA-256 is {sources[source.name].sha256}, the spec wants "
            f"{spec.sha256}: another file, or a damaged copy"
        )


def _source(name: str, spec: ModelSpec, folder: Path) -> Path:
    if spec.onnx is not None:
        return resolve_source(spec.onnx, folder)
    from tritonsmith_generator.torchexport import export

    assert spec.torch is not None  # the spec's validator allows nothing else
    # The factory's code may depend on anything, so it is exported each time; equal bytes mean
    # that nothing is rebuilt.
    home = cache_folder("exports") / _hash(folder=str(folder.resolve()), torch=spec.torch)
    home.mkdir(parents=True, exist_ok=True)
    return export(_from(folder, spec.torch), home / f"{name}.onnx", force=True).path


def _from(folder: Path, factory: str) -> str:
    """A factory in a file is named relative to the spec, as all its paths are."""
    return str(folder / factory) if ".py:" in factory else factory


def _sample_files(spec: ModelSpec, folder: Path) -> tuple[Path, ...]:
    """The samples that lie in files: a change in them is a change of the model."""
    given = (spec.calibration, spec.accuracy.samples)
    paths = [folder / source for source in given if source is not None]
    inside = [sorted(path.rglob("*.npy")) if path.is_dir() else [path] for path in paths]
    return tuple(path for files in inside for path in files if path.is_file())


def _sources(
    source: Path, samples: tuple[Path, ...], locked: LockedModel | None
) -> Mapping[str, FileRecord]:
    """The files that are read, by name; hashed only if they changed since the lock was written."""
    home = source.parent
    known = locked.sources if locked is not None else {}
    wanted = {source.name, *(os.path.relpath(path, home) for path in samples)}
    if wanted <= set(known) and all(record.still(home / name) for name, record in known.items()):
        return known
    from tritonsmith_generator.onnxfile import read

    files = (*read(source).files, *samples)
    return {
        os.path.relpath(path, home): FileRecord.of(path)
        for path in files
        if path.is_file()  # precheck says what is wrong with a missing one
    }


def _update(
    job: Job, repository: Path, lock: Lock, dry_run: bool, force: bool, on_event: OnEvent
) -> tuple[ModelResult, LockedModel | None]:
    locked = lock.models.get(job.name)
    if locked is not None and locked.key == job.key and _intact(repository / job.name, locked):
        return ModelResult(job.name, "unchanged", locked.target, locked.version), None
    # What builds a model is heavy to import; a run with nothing to do never gets here.
    from tritonsmith_generator.modelbuild import build_model

    built = build_model(job, repository, locked, dry_run, force, on_event)
    result = ModelResult(
        job.name,
        "planned" if dry_run else "built",
        job.target.name,
        built.version,
        built.changes,
        built.warnings,
        built.notes,
    )
    return result, None if dry_run else built.entry


def _intact(folder: Path, locked: LockedModel) -> bool:
    return all(record.still(folder / path) for path, record in locked.files.items())


def _timed(result: ModelResult, seconds: float) -> ModelResult:
    return ModelResult(**{**result.__dict__, "seconds": seconds})


def _hash(**parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
