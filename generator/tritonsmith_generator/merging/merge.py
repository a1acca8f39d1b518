"""Several repositories, each built where one GPU is, become one that serves on all of them.

A model that all of them built from the same spec and source gets the plans of each in one version
directory, and a config that says which GPU opens which. A model that only one has is taken over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tritonsmith_generator.errors import InputError, UsageError
from tritonsmith_generator.merging.combine import Joined, join
from tritonsmith_generator.merging.compatibility import disagreement
from tritonsmith_generator.merging.copies import Part, read_parts
from tritonsmith_generator.onnx_model.case_file import case_path
from tritonsmith_generator.repository.changes import Change, Content, compare, refuse_conflicts
from tritonsmith_generator.repository.inspect import CONFIG_NAME
from tritonsmith_generator.repository.lock import (
    FileRecord,
    Lock,
    LockedModel,
    read_lock,
    write_lock,
)
from tritonsmith_generator.repository.publish import exclusive, next_version, publish
from tritonsmith_generator.triton_config.plan_files import order

__all__ = ["MergedModel", "merge"]


@dataclass(frozen=True)
class MergedModel:
    """What became of one model.

    ``gpus`` are those that it has a plan for: compute capabilities such as "9.0", or
    "ampere_plus"; empty for what is no TensorRT plan. ``repositories`` is where it was found.
    """

    name: str
    status: Literal["merged", "copied", "unchanged", "planned"]
    target: str
    version: int
    gpus: tuple[str, ...]
    repositories: tuple[Path, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Step:
    """A model that is ready to be published."""

    joined: Joined
    version: int
    files: Mapping[str, Content]
    changes: tuple[Change, ...]

    @property
    def done(self) -> bool:
        return all(change.action == "identical" for change in self.changes)


def merge(
    repositories: Sequence[Path], output: Path, *, dry_run: bool = False, force: bool = False
) -> tuple[MergedModel, ...]:
    """Merge two or more repositories into ``output``, which may be new or one of them.

    Everything is compared before anything is written. What ``output`` holds already stays: a
    model that changes gets another version. ``force`` replaces a config that was changed by hand.

    Raises InputError with every model whose copies don't agree, UsageError for fewer than two
    repositories, HostError if ``output`` cannot be written.
    """
    if len({repository.resolve() for repository in repositories}) < max(2, len(repositories)):
        raise UsageError("name two or more repositories, each of them once")
    with nullcontext() if dry_run else exclusive(output):
        found = read_parts(repositories)
        _refuse_disagreements(found)
        lock = read_lock(output).for_release(_release(repositories))
        steps = [_step(output, lock, join(parts), force) for parts in found.values()]
        for step in steps if not dry_run else ():
            lock = _publish(output, lock, step)
        return tuple(_result(step, dry_run) for step in steps)


def _release(repositories: Sequence[Path]) -> str | None:
    """Return the Triton release that all are for, as far as they say. Raises InputError for two."""
    said = {read_lock(path).triton: path for path in repositories}
    said.pop(None, None)
    if len(said) > 1:
        (a, first), (b, other) = list(said.items())[:2]
        raise InputError(
            f"{first} is for Triton {a} and {other} for Triton {b}: build both for the release "
            "that is to serve them"
        )
    return next(iter(said), None)


def _refuse_disagreements(found: Mapping[str, tuple[Part, ...]]) -> None:
    problems = [
        problem
        for first, *others in found.values()
        for other in others
        if (problem := disagreement(first, other)) is not None
    ]
    if problems:
        raise InputError("\n".join(problems))


def _step(output: Path, lock: Lock, joined: Joined, force: bool) -> _Step:
    folder, locked = output / joined.name, lock.models.get(joined.name)
    version = joined.version
    if joined.artifact and joined.pinned is None and folder.exists():
        version = next_version(folder, joined.artifact)
    files: dict[str, Content] = {
        **{f"{version}/{name}": path for name, path in joined.artifact.items()},
        **joined.others,
    }
    if joined.cases is not None:
        files[str(case_path(Path(), version))] = joined.cases
    changes = compare(output, joined.name, files, locked.files if locked else {})
    _refuse_other_files(folder, version, joined, changes)
    _refuse_lost_plans(folder, locked, joined)
    refuse_conflicts(changes, force)
    return _Step(joined, version, files, changes)


def _refuse_other_files(
    folder: Path, version: int, joined: Joined, changes: tuple[Change, ...]
) -> None:
    """Check that a version that is there already holds these files, and no others."""
    there = {path.name for path in (folder / str(version)).glob("*")}
    other = [
        str(folder.parent / change.path)
        for change in changes
        if change.action == "conflict" and change.path.split("/")[1].isdigit()
    ]
    if joined.artifact:
        known = {name.split("/")[0] for name in joined.artifact}
        other += [str(folder / str(version) / name) for name in sorted(there - known)]
    if other:
        raise InputError(
            f"{other[0]} is none of the files that are merged, and versions are immutable: "
            "merge into another folder (-o)"
        )


def _refuse_lost_plans(folder: Path, there: LockedModel | None, joined: Joined) -> None:
    kept = joined.locked.plans if joined.locked is not None else {}
    lost = order((there.plans if there is not None else {}).keys() - kept.keys())
    if lost:
        raise InputError(
            f"{folder} also has a plan for {', '.join(lost)}, which would no longer be served: "
            f"name {folder.parent} as well as a repository to merge, or merge into another "
            "folder (-o)"
        )


def _publish(output: Path, lock: Lock, step: _Step) -> Lock:
    joined = step.joined
    if not step.done:
        publish(output, joined.name, step.files)
    if joined.locked is None:
        return lock
    folder = output / joined.name
    ours = {path for part in joined.parts if part.locked for path in part.locked.files}
    made = (f"{step.version}/", str(case_path(Path(), step.version)), CONFIG_NAME)
    written = sorted(path for path in step.files if path in ours or path.startswith(made))
    files = {path: FileRecord.of(folder / path) for path in written}
    entry: LockedModel = replace(joined.locked, version=step.version, files=files)
    lock = lock.with_model(joined.name, entry)
    write_lock(output, lock)
    return lock


def _result(step: _Step, dry_run: bool) -> MergedModel:
    joined = step.joined
    made: Literal["merged", "copied"] = "merged" if len(joined.parts) > 1 else "copied"
    return MergedModel(
        joined.name,
        "unchanged" if step.done else "planned" if dry_run else made,
        joined.parts[0].target,
        step.version,
        tuple(joined.locked.plans) if joined.locked is not None else (),
        tuple(part.repository for part in joined.parts),
        step.changes,
        joined.notes,
    )
