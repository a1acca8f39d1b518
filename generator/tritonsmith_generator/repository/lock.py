"""``repository.lock.json``: what was built from what, with which tools.

It lies at the top of the model repository, where Triton takes no notice of files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.digest import sha256
from tritonsmith_generator.layout import LOCK_NAME
from tritonsmith_generator.spec.limits import Limits

__all__ = [
    "ConfigComments",
    "FileRecord",
    "Lock",
    "LockedModel",
    "LockedPlan",
    "read_lock",
    "write_lock",
]

FieldPath = tuple[str | int, ...]

_FORMAT = 2
_READ = (1, 2)  # 1 had no "stages"


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when recorded: its hash, and what tells cheaply that it is unchanged."""

    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        stat = path.stat()
        return cls(sha256(path), stat.st_size, stat.st_mtime_ns)

    def still(self, path: Path) -> bool:
        """Whether the file holds the same bytes; hashed only where size or time differ."""
        try:
            stat = path.stat()
        except OSError:
            return False
        if stat.st_size != self.size:
            return False
        return stat.st_mtime_ns == self.mtime_ns or sha256(path) == self.sha256

    def holds(self, path: Path) -> bool:
        """Whether the file holds the same bytes; hashed in any case."""
        try:
            return path.stat().st_size == self.size and sha256(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class LockedPlan:
    """A TensorRT plan of a version: the name of its file, and where it comes from.

    ``key``, ``artifact`` and ``tools`` are the model's on the machine that built this plan.
    """

    file: str
    key: str
    artifact: str
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigComments:
    """What ``config.pbtxt`` says in comments: its first lines, and a note on some of its fields."""

    header: tuple[str, ...] = ()
    notes: tuple[tuple[FieldPath, str], ...] = ()


@dataclass(frozen=True)
class LockedModel:
    """One model as it was published.

    ``key`` stands for everything that the model's files follow from, ``artifact`` for what its
    version's files follow from. ``precision`` and ``limit`` (what differs from the precision's
    defaults) say how near its answers are to the original's. ``sources`` and ``files`` are by
    path, relative to the source's folder and to the model's; ``tools`` are versions. ``spec`` is
    what the spec says of the model, defaults and the source's place left out. ``plans`` are those
    of target ``tensorrt``, by the GPUs that they run on (see ``plans``). ``stages`` has the inputs
    of each stage that took part, by its name (see ``stage``). ``accuracy`` is what the plan's run
    on the GPU gave (see ``plan_accuracy.measure_plan``); empty where there was none. ``comments``
    are those of its config. ``rows`` is what is known of the rows of a batch (see ``Rows``); empty
    where they are independent.
    """

    key: str
    artifact: str
    target: str
    version: int
    source: str
    precision: str = "fp32"
    limit: Limits = Limits()
    sources: Mapping[str, FileRecord] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    plans: Mapping[str, LockedPlan] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    comments: ConfigComments = ConfigComments()
    rows: Mapping[str, str] = field(default_factory=dict)

    def follows_from(self, key: str) -> bool:
        """Whether a job with this key made these files, or one of several plans among them."""
        return key in (self.key, *(plan.key for plan in self.plans.values()))


@dataclass(frozen=True)
class Lock:
    """All models that gen-repo wrote into a repository, by name.

    ``triton`` is the release that the spec says must load them, such as "26.10"; None if it
    says none.
    """

    models: Mapping[str, LockedModel] = field(default_factory=dict)
    triton: str | None = None

    def with_model(self, name: str, model: LockedModel) -> Lock:
        return replace(self, models={**self.models, name: model})

    def for_release(self, triton: str | None) -> Lock:
        """With this release, if one is given."""
        return self if triton is None else replace(self, triton=triton)


def read_lock(repository: Path) -> Lock:
    """Give the lock of a repository; empty where there is none. Raises InputError if unreadable."""
    path = repository / LOCK_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] not in _READ:
            raise InputError(
                f"{path} has format {data['format']}, this gen-repo reads up to {_FORMAT}: "
                "use the gen-repo that wrote it, or remove the file and build again"
            )
        models = {name: _model(entry) for name, entry in data["models"].items()}
        return Lock(models, data.get("triton"))
    except FileNotFoundError:
        return Lock()
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(
            f"{path} is not a readable lock ({exc}): restore it, or remove it and build again"
        ) from exc


def write_lock(repository: Path, lock: Lock) -> None:
    """Replace the lock at once."""
    path = repository / LOCK_NAME
    models = {name: _entry(lock.models[name]) for name in sorted(lock.models)}
    release = {} if lock.triton is None else {"triton": lock.triton}
    text = json.dumps({"format": _FORMAT, **release, "models": models}, indent=1) + "\n"
    temporary = path.with_name(f".{LOCK_NAME}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _entry(model: LockedModel) -> Mapping[str, Any]:
    """Leave out what an earlier gen-repo does not know, where there is nothing to say."""
    entry = asdict(model)
    return entry if model.rows else {k: v for k, v in entry.items() if k != "rows"}


def _model(entry: Mapping[str, Any]) -> LockedModel:
    records = {
        key: {path: FileRecord(**record) for path, record in entry[key].items()}
        for key in ("sources", "files")
    }
    plans = {gpus: LockedPlan(**plan) for gpus, plan in entry.get("plans", {}).items()}
    others = {
        "limit": _limits(entry.get("limit")),
        "plans": plans,
        "comments": _comments(entry.get("comments", {})),
    }
    return LockedModel(**{**entry, **records, **others})


def _comments(entry: Mapping[str, Any]) -> ConfigComments:
    notes = tuple((tuple(path), text) for path, text in entry.get("notes", ()))
    return ConfigComments(tuple(entry.get("header", ())), notes)


def _limits(given: Any) -> Limits:
    """One number is what gen-repo wrote when there was no other limit than that of relative L2."""
    return Limits(**given) if isinstance(given, Mapping) else Limits(relative_l2=given)
