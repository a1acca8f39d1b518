"""TensorRT's timing cache on the disk: read before a build, merged into after it.

What was timed on one GPU with one TensorRT says nothing of another: each pair has its own file.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.trt.availability import Release, has

__all__ = ["merge_timing_cache", "timing_cache_path", "use_timing_cache"]


def timing_cache_path(folder: Path, release: Release, gpu: Gpu) -> Path | None:
    """Where the timings of this GPU model and this TensorRT belong; None where there are none."""
    if not has(release, "IBuilderConfig.set_timing_cache"):
        return None
    words = f"{release}-{gpu.name}-sm{gpu.compute_capability}"
    return folder / f"{re.sub(r'[^a-z0-9.]+', '-', words.lower())}.timing"


def use_timing_cache(config: Any, path: Path) -> None:
    """Give what the file holds to the builder; an empty cache where there is no file."""
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise _unfit(path)


def merge_timing_cache(config: Any, path: Path) -> None:
    """Add what the builder timed to the file. Builds side by side lose nothing of each other's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path):
        merged = config.get_timing_cache()
        if path.is_file():
            written = config.create_timing_cache(path.read_bytes())
            if written is None:
                raise _unfit(path)
            # What was read before the build is in `merged` already; this adds what other builds
            # have written since. 8.6 refuses a cache without entries, which loses nothing.
            merged.combine(written, True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(memoryview(merged.serialize()))
        fresh.replace(path)


def _unfit(path: Path) -> InputError:
    return InputError(
        f"{path} is no timing cache of this GPU and this TensorRT: name another file, or delete it"
    )


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    # The lock is a file of its own: the cache itself is replaced.
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
