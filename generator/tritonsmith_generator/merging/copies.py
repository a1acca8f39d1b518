"""Parts: the copies of one model that several repositories hold, to be merged into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.case_file import case_path
from tritonsmith_generator.repository.inspect import (
    CONFIG_NAME,
    model_folders,
    read_config,
    version_numbers,
)
from tritonsmith_generator.repository.lock import LockedModel, read_lock

__all__ = ["Part", "read_parts"]


@dataclass(frozen=True)
class Part:
    """One repository's copy of a model. ``locked`` is None where gen-repo did not write it."""

    repository: Path
    name: str
    config: ModelConfig
    locked: LockedModel | None

    @property
    def folder(self) -> Path:
        return self.repository / self.name

    @property
    def target(self) -> str:
        return self.locked.target if self.locked is not None else str(self.config.backend)

    @property
    def versions(self) -> tuple[int, ...]:
        return version_numbers(self.folder)

    @property
    def version(self) -> int:
        """The one that gen-repo wrote last, or the newest; 0 where there is none."""
        return self.locked.version if self.locked is not None else max(self.versions, default=0)

    @property
    def cases(self) -> Path | None:
        path = case_path(self.folder, self.version)
        return path if path.is_file() else None

    def files(self, version: int | None = None) -> dict[str, Path]:
        """Get the files of a version, or all of the model, by path relative to its folder there."""
        home = self.folder if version is None else self.folder / str(version)
        found = sorted(path for path in home.rglob("*") if path.is_file())
        return {path.relative_to(home).as_posix(): path for path in found}

    def side_files(self) -> dict[str, Path]:
        """Return what is neither config nor cases nor in a version: labels, warmup data, ..."""
        apart = {"cases", CONFIG_NAME, *map(str, self.versions)}
        return {p: path for p, path in self.files().items() if p.split("/")[0] not in apart}


def read_parts(repositories: Sequence[Path]) -> Mapping[str, tuple[Part, ...]]:
    """Return the parts of each model, in the order of the repositories.

    Raises InputError for a folder that holds no model, and for a file that is not what gen-repo
    wrote: what it was made from is then not known.
    """
    parts: dict[str, tuple[Part, ...]] = {}
    for repository in repositories:
        folders = model_folders(repository)
        if not folders:
            raise InputError(f"{repository} holds no model; make one with: gen-repo build")
        lock = read_lock(repository)
        for folder in folders:
            locked = lock.models.get(folder.name)
            part = Part(repository, folder.name, read_config(folder), locked)
            _refuse_changed(part)
            parts[part.name] = (*parts.get(part.name, ()), part)
    return parts


def _refuse_changed(part: Part) -> None:
    for path, record in part.locked.files.items() if part.locked is not None else ():
        if not record.still(part.folder / path):
            raise InputError(
                f"{part.folder / path} is gone or is not what gen-repo wrote: build it again, "
                "with the change in the spec"
            )
