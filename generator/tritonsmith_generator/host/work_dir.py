"""Folders for intermediate files: gone when their process is, however it ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.host.os_errors import file_trouble_in_words

__all__ = ["remove_abandoned", "work_folder"]


@contextmanager
def work_folder() -> Iterator[Path]:
    """Provide a new folder in the user's cache, removed at the end of the block.

    Its process holds a lock on it. Folders without one were left by processes that were killed:
    they are removed, too. Raises HostError where the folder or a file in it cannot be written, and
    InputError or HostError in the place of an OSError in the block about any other file.
    """
    home = cache_folder("work")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home):  # a folder that is not locked yet is not taken for an abandoned one
            _remove_abandoned(home)
            folder = Path(tempfile.mkdtemp(dir=home))
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            with file_trouble_in_words("the build", folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)
    except OSError as exc:
        raise HostError(
            f"cannot work in {home}: {exc.strerror or exc}; XDG_CACHE_HOME names another place"
        ) from exc


def remove_abandoned() -> None:
    """Remove what processes left that were killed; folders in use stay."""
    home = cache_folder("work")
    if home.is_dir():
        with _locked(home):
            _remove_abandoned(home)


def _remove_abandoned(home: Path) -> None:
    for folder in home.iterdir():
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # its process has just removed it
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
