"""Where plans are compiled: with the TensorRT of this environment, or with a server image's own.

``engine_image`` has the other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release

if TYPE_CHECKING:
    from tritonsmith_generator.engine.process import EngineProcess

__all__ = ["LOCAL", "Toolchain"]


class Toolchain(Protocol):
    """A place with TensorRT libraries.

    Attributes:
        compiles_here: whether it is this environment, whose TensorRT may be loaded ahead of time.
        releases: the libraries that it has.
        identity: what else a plan built there follows from, such as the image; for the lock.
        facts: what the lock records besides, and no plan follows from.
        timings: the folder of its timing caches.
    """

    @property
    def compiles_here(self) -> bool: ...
    @property
    def releases(self) -> tuple[Release, ...]: ...
    @property
    def identity(self) -> Mapping[str, str]: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def timings(self) -> Path: ...

    def missing(self, library: Library) -> HostError:
        """Return what to say where a model needs a library that this place has not."""

    def process(self, library: Library) -> EngineProcess:
        """Where one plan is built and run; nothing is started yet."""


class _Local:
    """This environment's own libraries."""

    compiles_here = True
    identity: Mapping[str, str] = {}
    facts: Mapping[str, str] = {}

    @property
    def releases(self) -> tuple[Release, ...]:
        return tensorrt_releases()

    @property
    def timings(self) -> Path:
        return cache_folder("timing")

    def missing(self, library: Library) -> HostError:
        extra = library.replace("_", "-")
        return HostError(
            f"target {library}: the Python package '{library}' is not installed: "
            f"pip install 'tritonsmith[{extra}]'"
        )

    def process(self, library: Library) -> EngineProcess:
        from tritonsmith_generator.engine.process import local_process

        return local_process(library)


LOCAL: Toolchain = _Local()
