"""Stages: the steps of a build that take time, each result kept under the hash of its inputs.

    stage = Stage("plan", {"graph": digest, "precision": "fp16", "GPU": "9.0"})
    kept = stage.kept() or stage.made(compile_into)

Results lie in the cache folder under ``stages/NAME/KEY``, for all models and repositories. Their
bytes are verified whenever they are used. In all they take 10 GB, or the number of gigabytes in
``TRITONSMITH_CACHE_GB``: what was not used for the longest time is removed. Removing the folder by
hand is safe.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.cache_dir import cache_folder, make_once, prune, used
from tritonsmith_generator.host.digest import sha256
from tritonsmith_generator.host.os_errors import file_trouble_in_words

__all__ = ["Inputs", "Kept", "Make", "Stage", "cache_limit", "prune_stages"]

# By name: a value as the user knows it, a version, or "sha256:..." for the bytes of a file.
Inputs = Mapping[str, str]

# Fills an empty folder and returns what else there is to say, as JSON knows it.
Make = Callable[[Path], Mapping[str, Any]]
_RECORD = "kept.json"
_LIMIT_GB = 10.0
_LIMIT_NAME = "TRITONSMITH_CACHE_GB"


@dataclass(frozen=True)
class Kept:
    """The result of a stage: files in ``folder`` with their SHA-256, and what ``Make`` returned.

    ``fresh`` says that it was made just now, by this process.
    """

    folder: Path
    files: Mapping[str, str]
    about: Mapping[str, Any]
    fresh: bool = False


@dataclass(frozen=True)
class Stage:
    """A step whose result follows from its inputs, and from nothing else."""

    name: str
    inputs: Inputs

    @property
    def key(self) -> str:
        """Stands for the result."""
        return _hash([self.name, dict(self.inputs)])

    @property
    def folder(self) -> Path:
        """Where the result is kept, if it is there."""
        return cache_folder("stages") / self.name / self.key

    def kept(self) -> Kept | None:
        """Return the result, if it is in the cache and its bytes are what they were."""
        used(self.folder)  # before they are read, so that nobody removes them meanwhile
        return _verified(self.folder)

    def made(self, make: Make) -> Kept:
        """Make the result. Another process that makes the same is waited for and shares it.

        Raises HostError if the cache cannot be written, and what ``make`` raises; InputError or
        HostError, by what happened, in the place of its OSError about any other file.
        """
        ours = list[Kept]()

        def fill(folder: Path) -> None:
            with file_trouble_in_words(f"the stage {self.name}", folder):
                about = make(folder)
            files = {
                str(path.relative_to(folder)): _digest(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            record = {"files": files, "about": about}
            (folder / _RECORD).write_text(json.dumps([_hash(record), record]))
            ours.append(Kept(self.folder, files, about, fresh=True))

        make_once(self.folder, fill, lambda folder: _verified(folder) is not None)
        if ours:  # what was just written needs no second look
            return ours[0]
        kept = _verified(self.folder)
        if kept is None:
            raise HostError(f"{self.folder} was changed while it was made: build again")
        return kept


def cache_limit() -> int:
    """Return the bytes that all results may take.

    Raises HostError for a limit that is no number.
    """
    given = os.environ.get(_LIMIT_NAME, "")
    try:
        limit = float(given) if given else _LIMIT_GB
    except ValueError:
        limit = -1.0
    if not limit >= 0:  # NaN is no limit either
        raise HostError(f"{_LIMIT_NAME} is '{given}': set it to a number of gigabytes, or unset it")
    return int(min(limit, 1e9) * 1e9)


def prune_stages(limit: int) -> None:
    """Remove what was not used for the longest time, until the rest takes ``limit`` bytes.

    It looks at all that is kept, so once for all models of a run is enough.
    """
    prune(cache_folder("stages"), limit)


def _verified(folder: Path) -> Kept | None:
    try:
        sealed, record = json.loads((folder / _RECORD).read_text())
        kept = Kept(folder, record["files"], record["about"])
        good = sealed == _hash(record) and all(
            _digest(folder / name) == digest for name, digest in kept.files.items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return kept if good else None


def _digest(path: Path) -> str:
    return f"sha256:{sha256(path)}"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
