"""The code that makes a stage's result: whole rooms, so that no file of it can be forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tritonsmith_generator.layout import PACKAGE

__all__ = ["PLUMBING", "ROOMS", "code_digest", "files_of"]

_GRAPH = ("onnx_model", "passes")
_JOB = ("spec", "stages", "triton_config")

# By stage. A room is hashed whole: too often made again is better than a wrong result kept.
ROOMS: Mapping[str, tuple[str, ...]] = {
    "cases": _GRAPH,
    "conversion": (*_GRAPH, *_JOB, "accuracy", "engine", "precision", "trt"),
    "plan": (*_GRAPH, *_JOB, "accuracy", "backends/common", "engine", "trt"),
    "accuracy": (*_GRAPH, *_JOB, "accuracy", "backends/common", "engine", "precision", "trt"),
}

# What stages import besides, and no result follows from: it carries, tells, waits and looks up.
# What `host` finds out about this machine is among a stage's inputs, and so are the bytes that
# `torch_export` writes.
PLUMBING = frozenset(
    {"errors", "events", "host", "layout", "repository", "torch_export", "workers"}
)


def files_of(room: str, package: Path = PACKAGE) -> tuple[Path, ...]:
    """Return the Python files of a room, and of the rooms in it.

    Raises LookupError if there are none.
    """
    found = tuple(sorted((package / room).rglob("*.py")))
    if not found:
        raise LookupError(f"a stage's code is in {package / room}, and no Python file is there")
    return found


@cache
def code_digest(stage: str, package: Path = PACKAGE) -> str:
    """Return the SHA-256 of a stage's code, names and bytes.

    Raises LookupError for an empty room.
    """
    digest = hashlib.sha256()
    for room in ROOMS[stage]:
        for path in files_of(room, package):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
