"""One engine build on a GPU at a time: TensorRT chooses kernels by how long they take."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.host.gpus import visible_gpus

__all__ = ["gpu_turn"]


@contextmanager
def gpu_turn(on_wait: Callable[[], None] = lambda: None) -> Iterator[float]:
    """Keep other builds of this user, of whichever run, off this process's first GPU.

    Yields the seconds that it had to wait, 0 if none. ``on_wait`` is called if it has to. Where
    there is no GPU, nothing is waited for. The turn ends with the process, however that ends.
    """
    gpus = visible_gpus()
    handle = _opened(gpus[0].uuid) if gpus else None
    if handle is None:
        yield 0.0
        return
    waited = 0.0
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            began = monotonic()
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
            waited = monotonic() - began
        yield waited
    finally:
        os.close(handle)


def _opened(gpu: str) -> int | None:
    """None in a container whose user has no folder: it has the GPU for itself, or nobody knows."""
    path = cache_folder("gpus") / f"{gpu}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
