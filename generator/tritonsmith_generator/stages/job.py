"""A job: one model of the spec with everything that its result follows from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonsmith_generator.engine.resolve import release_of, resolve
from tritonsmith_generator.engine.toolchain import Toolchain
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.host.user_code import file_of_factory
from tritonsmith_generator.repository.lock import FileRecord, LockedModel
from tritonsmith_generator.spec.schema import ModelSpec, resolve_source
from tritonsmith_generator.spec.targets import TargetKind
from tritonsmith_generator.triton_config.plan_parameters import plugin_files

if TYPE_CHECKING:
    from tritonsmith_generator.passes import Options, Samples
    from tritonsmith_generator.passes.recipe import Executor, Recipe
    from tritonsmith_generator.trt.availability import Release

__all__ = ["Job", "make_job"]

# What the files of a version depend on, apart from the source's bytes and the tools.
_MAKING = frozenset(
    {
        *("precision", "shapes", "keep", "calibration", "quantization", "simplify", "sparse"),
        *("builder", "accuracy"),
    }
)


@dataclass(frozen=True)
class Job:
    """One model to build, with everything that its result follows from.

    ``folder`` is where the spec's paths start; ``sources`` are the files that are read, by path
    relative to the model file's folder. ``release`` is what builds its plan, if one is built.
    """

    name: str
    spec: ModelSpec
    target: TargetKind
    source: Path
    folder: Path
    sources: Mapping[str, FileRecord] = field(repr=False)
    tools: Mapping[str, str]
    toolchain: Toolchain
    release: Release | None = None

    @cached_property
    def executor(self) -> tuple[Executor, str]:
        """What runs the model, and its version."""
        if self.release is None:
            return "onnxruntime", self.tools["onnxruntime"]
        return self.release.library, ".".join(map(str, self.release.version))

    @cached_property
    def recipe(self) -> Recipe:
        """The passes that the spec's precision needs, and what they ask of the builder."""
        from tritonsmith_generator.passes import for_precision  # not for a build with nothing to do

        return for_precision(self.spec.precision, *self.executor, self.pass_options)

    @cached_property
    def pass_options(self) -> Options:
        """What the spec says to the passes."""
        from tritonsmith_generator.passes import Options

        spec = self.spec
        return Options(
            keep=spec.keep,
            samples=self.samples(spec.range_samples),
            simplify=spec.simplify,
            sparse=spec.sparse,
            quantization=spec.quantization,
        )

    def samples(self, source: str | None) -> Samples | None:
        """Return the user's samples; a path in the spec is relative to the spec's folder."""
        from tritonsmith_generator.passes import Samples

        if source is None:
            return None
        path = self.folder / source
        if path.exists() or ":" not in source or ".py:" in source:
            return Samples(str(path))
        return Samples(source)

    @property
    def said(self) -> Mapping[str, Any]:
        """What the spec says of the model, as JSON: defaults and the source's place left out."""
        return self.spec.model_dump(mode="json", exclude={"onnx", "torch"}, exclude_defaults=True)

    @property
    def plugins(self) -> Mapping[str, Path]:
        """The plugin libraries of a plan, by their names beside it."""
        return plugin_files(self.spec.builder.plugins, self.folder) if self.target.compiled else {}

    def sample_digests(self, source: str | None) -> Mapping[str, str]:
        """Return the SHA-256 of each file that these samples are read from."""
        paths = _sample_files(source, self.folder)
        names = (os.path.relpath(path, self.source.parent) for path in paths)
        return {name: self.sources[name].sha256 for name in names}

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


def make_job(
    name: str, spec: ModelSpec, folder: Path, locked: LockedModel | None, toolchain: Toolchain
) -> Job:
    """Resolve target, source and tools. Raises InputError for the source, HostError for tools."""
    target = resolve(spec, toolchain)
    source = _source(name, spec, folder)
    samples = {
        path
        for given in (spec.calibration, spec.accuracy.samples)
        for path in _sample_files(given, folder)
    }
    plugins = plugin_files(spec.builder.plugins, folder) if target.compiled else {}
    sources = _sources(source, tuple(sorted(samples | {*plugins.values()})), locked)
    _refuse_other_bytes(spec, source, sources)
    release = release_of(target, toolchain)
    tools = {package: _version(package) for package in ("tritonsmith", "onnx", "onnxruntime")}
    if release is not None:
        tools[release.library] = str(release)
        # Plans are built for the first GPU; the process that builds may see one like it alone.
        tools["gpu"] = "".join(gpu.compute_capability for gpu in visible_gpus()[:1])
        tools |= toolchain.identity
    return Job(name, spec, target, source, folder, sources, tools, toolchain, release)


@cache
def _version(package: str) -> str:
    return version(package)  # a millisecond, which a hundred models would feel


def _refuse_other_bytes(spec: ModelSpec, source: Path, sources: Mapping[str, FileRecord]) -> None:
    """Refuse other bytes: a flipped bit in a weight is still a valid model; its digest tells."""
    if spec.sha256 is not None and sources[source.name].sha256 != spec.sha256:
        raise InputError(
            f"{source}: its SHA-256 is {sources[source.name].sha256}, the spec wants "
            f"{spec.sha256}: another file, or a damaged copy"
        )


def _source(name: str, spec: ModelSpec, folder: Path) -> Path:
    if spec.onnx is not None:
        return resolve_source(spec.onnx, folder)
    from tritonsmith_generator.torch_export.export import export

    assert spec.torch is not None  # the spec's validator allows nothing else
    # The factory's code may depend on anything, so it is exported each time; equal bytes mean
    # that nothing is rebuilt.
    home = cache_folder("exports") / _hash(folder=str(folder.resolve()), torch=spec.torch)
    home.mkdir(parents=True, exist_ok=True)
    return export(_from(folder, spec.torch), home / f"{name}.onnx", force=True).path


def _from(folder: Path, factory: str) -> str:
    """Name a factory's file relative to the spec, as all its paths are."""
    return str(folder / factory) if ".py:" in factory else factory


def _sample_files(source: str | None, folder: Path) -> tuple[Path, ...]:
    """Return the files that samples are read from, or the one with the function that makes them.

    A change in them is a change of the model.
    """
    if source is None:
        return ()
    path = folder / source
    if not path.exists() and ":" in source:
        path = file_of_factory(source, folder) or path
    found = sorted(path.rglob("*.npy")) if path.is_dir() else [path]
    return tuple(path for path in found if path.is_file())


def _sources(
    source: Path, others: tuple[Path, ...], locked: LockedModel | None
) -> Mapping[str, FileRecord]:
    """Return the files that are read, by name; hashed only if they changed since the lock."""
    home = source.parent
    known = locked.sources if locked is not None else {}
    wanted = {source.name, *(os.path.relpath(path, home) for path in others)}
    if wanted <= set(known) and all(record.still(home / name) for name, record in known.items()):
        return known
    from tritonsmith_generator.onnx_model.onnx_file import read

    files = (*read(source).files, *others)
    return {
        os.path.relpath(path, home): FileRecord.of(path)
        for path in files
        if path.is_file()  # precheck and builder say what is wrong with a missing one
    }


def _hash(**parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
