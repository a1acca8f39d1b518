"""Blocks of system shared memory, and what a folder full of dead ones needs."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from tritonsmith_client._shared_memory.region_names import is_abandoned, region_name

__all__ = ["Region", "clear_folder"]


FOLDER = Path("/dev/shm")


class Region:
    """A block of shared memory. Its name disappears with `unlink`, the memory with the object."""

    def __init__(self, size: int) -> None:
        """Raise OSError where there is no shared memory, or not enough of it."""
        self.name = region_name()
        self.size = size
        path = FOLDER / self.name
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a full /dev/shm is an error now, not SIGBUS
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self.map = mmap.mmap(descriptor, size, flags)
        except BaseException:
            self.unlink()
            raise
        finally:
            os.close(descriptor)
        self.bytes = memoryview(self.map)

    @property
    def key(self) -> str:
        return "/" + self.name

    def unlink(self) -> None:
        """Take the name away; whoever has mapped the region keeps it."""
        with contextlib.suppress(OSError):
            (FOLDER / self.name).unlink()


def clear_folder() -> None:
    """Take away the names that processes left which were killed while they registered a region."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [path.name for path in FOLDER.iterdir()]
    for name in filter(is_abandoned, names):
        with contextlib.suppress(OSError):  # it may be another user's, or just gone
            (FOLDER / name).unlink()


def free_bytes() -> int:
    """Bytes of shared memory that are left on this host."""
    try:
        status = os.statvfs(FOLDER)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
