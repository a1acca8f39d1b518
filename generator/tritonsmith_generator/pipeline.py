"""From a spec to a repository: what is out of date is built, checked and published.

A model is left alone when everything that its files follow from is as it was: the bytes of its
source, its part of the spec, and the tools. ``key`` in the lock is the hash of all that.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

from tritonsmith_generator.errors import InputError, TritonsmithError
from tritonsmith_generator.events import OnEvent, ignore
from tritonsmith_generator.job import Job, make_job
from tritonsmith_generator.lock import Lock, LockedModel, read_lock, write_lock
from tritonsmith_generator.repository import Change, exclusive
from tritonsmith_generator.spec import Spec
from tritonsmith_generator.toolchain import LOCAL, Toolchain

__all__ = ["ModelResult", "build"]


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


def build(
    spec: Spec,
    folder: Path,
    repository: Path,
    *,
    only: Collection[str] = (),
    dry_run: bool = False,
    force: bool = False,
    on_event: OnEvent = ignore,
    toolchain: Toolchain = LOCAL,
) -> tuple[ModelResult, ...]:
    """Bring the repository up to date with the spec; ``folder`` is where its paths start.

    A model that fails does not stop the others, and its files stay as they were. ``dry_run``
    writes nothing and compiles nothing. ``force`` replaces files that were changed by hand.
    Models in the repository that the spec doesn't name are left alone. ``toolchain`` is where
    plans are compiled.

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
        lock = read_lock(repository).for_release(spec.triton)
        for name, model in spec.models.items():
            if only and name not in only:
                continue
            began = perf_counter()
            try:
                job = make_job(name, model, folder, lock.models.get(name), toolchain)
                result, entry = _update(job, repository, lock, dry_run, force, on_event)
            except TritonsmithError as exc:
                result, entry = ModelResult(name, "failed", error=exc), None
            if entry is not None:
                lock = lock.with_model(name, entry)
                write_lock(repository, lock)
            results.append(replace(result, seconds=perf_counter() - began))
    return tuple(results)


def _update(
    job: Job, repository: Path, lock: Lock, dry_run: bool, force: bool, on_event: OnEvent
) -> tuple[ModelResult, LockedModel | None]:
    locked = lock.models.get(job.name)
    if (
        locked is not None
        and locked.follows_from(job.key)
        and _intact(repository / job.name, locked)
    ):
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
