"""What publishing would change in a repository: create, replace, keep, or a conflict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.repository.lock import FileRecord

__all__ = ["Change", "Content", "compare", "refuse_conflicts"]

# What a file shall hold: these bytes, or those of this file.
Content = bytes | Path
Action = Literal["create", "identical", "replace", "conflict"]


@dataclass(frozen=True)
class Change:
    """What publishing does to one file; ``path`` is relative to the repository."""

    path: str
    action: Action
    why: str = ""


def compare(
    repository: Path, name: str, files: Mapping[str, Content], owned: Mapping[str, FileRecord]
) -> tuple[Change, ...]:
    """Return what would happen to each file of a model.

    ``files`` and ``owned`` (the files that gen-repo wrote last time) are by path relative to the
    model's folder. A file that someone else made or changed is a conflict, and so is any other
    content for a file of an existing version.
    """
    return tuple(
        Change(
            f"{name}/{path}", *_compare(repository / name / path, content, path, owned.get(path))
        )
        for path, content in files.items()
    )


def _compare(
    target: Path, content: Content, path: str, owned: FileRecord | None
) -> tuple[Action, str]:
    if not target.exists():
        return "create", ""
    if _same(target, content):
        return "identical", ""
    if PurePosixPath(path).parts[0].isdigit():
        return "conflict", "versions are immutable and this one holds other bytes"
    if owned is None:
        return "conflict", "gen-repo did not write this file"
    if not owned.still(target):
        return "conflict", "the file was changed since gen-repo wrote it"
    return "replace", ""


def refuse_conflicts(changes: tuple[Change, ...], force: bool) -> None:
    """Raise InputError for a conflict; ``force`` allows those outside of versions."""
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


def _same(target: Path, content: Content) -> bool:
    if isinstance(content, bytes):
        return target.stat().st_size == len(content) and target.read_bytes() == content
    if target.stat().st_size != content.stat().st_size:
        return False
    with target.open("rb") as a, content.open("rb") as b:
        while piece := a.read(1 << 22):
            if piece != b.read(1 << 22):
                return False
    return True
