"""A toolchain with a bug in it, which no error of ours foresees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tritonsmith_generator.engine.process import EngineProcess
from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release

__all__ = ["BROKEN"]


class _Broken:
    compiles_here = False
    identity: Mapping[str, str] = {}
    facts: Mapping[str, str] = {}
    timings = Path()

    @property
    def releases(self) -> tuple[Release, ...]:
        return (1 // 0,)  # type: ignore[return-value]

    def missing(self, library: Library) -> HostError:
        raise NotImplementedError

    def process(self, library: Library) -> EngineProcess:
        return LOCAL.process(library)  # each model is given one; nothing is started in it


BROKEN = _Broken()
