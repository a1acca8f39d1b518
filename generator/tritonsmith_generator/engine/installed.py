"""Which TensorRT libraries this environment has; nothing is imported to find out."""

from __future__ import annotations

import importlib.util
from functools import cache

from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release

__all__ = ["tensorrt_releases"]


@cache
def tensorrt_releases() -> tuple[Release, ...]:
    """Return the installed TensorRT libraries, ``tensorrt`` first; nothing is imported."""
    libraries: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")
    found = []
    for library in libraries:
        version = _version(library)
        if version is not None and importlib.util.find_spec(library) is not None:
            found.append(Release.parse(library, version))
    return tuple(found)


def _version(library: str) -> str | None:
    from importlib import metadata  # it takes time, and not each process asks

    # The distribution's name may carry the CUDA version (tensorrt-cu12); Debian's has none.
    for name in (library, f"{library}_cu13", f"{library}_cu12", f"{library}_bindings"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
