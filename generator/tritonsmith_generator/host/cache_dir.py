"""Folders in the user's cache that are made once, by one process at a time, whole or not at all.

All of it may be removed at any time: what is needed is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tritonsmith_generator.errors import HostError

__all__ = ["cache_folder", "is_intact", "make_once", "prune", "used"]

_MANIFEST = "manifest.json"
_UNFINISHED = ".tmp-"
# What was used so lately may still be in use. Seconds.
_IN_USE = 3600.0


def cache_folder(part: str) -> Path:
    """$XDG_CACHE_HOME/tritonsmith/PART, or ~/.cache/tritonsmith/PART; it may not exist yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the XDG Base Directory Specification has such a one ignored
        base = Path.home() / ".cache"
    return base / "tritonsmith" / part


def is_intact(folder: Path) -> bool:
    """Whether every file is there with its size; a few milliseconds, contents are not read."""
    try:
        return all((folder / name).stat().st_size == size for name, size in _sizes(folder))
    except (OSError, ValueError, AttributeError):
        return False


def make_once(
    folder: Path, make: Callable[[Path], None], intact: Callable[[Path], bool] = is_intact
) -> Path:
    """Return ``folder``; if it is missing or broken, ``make`` fills a new one that replaces it.

    Processes that want the same folder wait for the one that makes it. A killed or failed
    ``make`` leaves nothing that is taken for a finished folder.
    """
    if intact(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(_lock_of(folder)):
            if not intact(folder):
                _replace(folder, make)
    except OSError as exc:
        raise HostError(
            f"Could not write to the cache folder {folder}: {exc}. The embedded server needs "
            "about 350 MB there, a plan as much as itself; XDG_CACHE_HOME names another place."
        ) from exc
    return folder


def used(folder: Path) -> None:
    """Note that the folder is in use now, for ``prune``."""
    with contextlib.suppress(OSError):
        os.utime(folder / _MANIFEST)


def prune(home: Path, limit: int) -> None:
    """Keep the folders below ``home`` within ``limit`` bytes in all.

    Those that were not used for the longest time go first; what was used in the last hour stays.
    """
    now, found = time.time(), []
    for place, folders, files in os.walk(home):  # takes no notice of what others remove meanwhile
        folder = Path(place)
        for name in folders:
            finished, unfinished, _ = name.partition(_UNFINISHED)
            if unfinished:
                _remove_unfinished(folder / finished)
        folders[:] = [name for name in folders if _UNFINISHED not in name]
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if _MANIFEST in files:
                size = sum(size for _, size in _sizes(folder))
                found.append(((folder / _MANIFEST).stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in found)
    for last_use, size, folder in sorted(found):
        if total <= limit or now - last_use < _IN_USE:
            break
        total -= size
        _remove(folder)


def _remove(folder: Path) -> None:
    gone = folder.with_name(folder.name + _UNFINISHED + "removed")
    with contextlib.suppress(OSError), _lock(_lock_of(folder), wait=False):
        folder.rename(gone)  # at once: nobody sees half of it
    _remove_unfinished(folder)


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left beside the folder; one that is at work has a lock."""
    with contextlib.suppress(OSError), _lock(_lock_of(folder), wait=False):
        for left in folder.parent.glob(folder.name + _UNFINISHED + "*"):
            shutil.rmtree(left, ignore_errors=True)
        if not folder.exists():
            _lock_of(folder).unlink()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    yield from json.loads((folder / _MANIFEST).read_text()).items()


def _replace(folder: Path, make: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(folder.name + _UNFINISHED + "*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + _UNFINISHED))
    try:
        new.chmod(0o755)
        content = new / "content"
        content.mkdir()
        make(content)
        files = {str(p.relative_to(content)): p.stat().st_size for p in _files(content)}
        (content / _MANIFEST).write_text(json.dumps(files))
        if folder.exists():
            folder.rename(new / "broken")
        content.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    """All files but Python's byte code, which its interpreter may write anew."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            yield path


@contextlib.contextmanager
def _lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Raise BlockingIOError if another process has it, and this one is not to wait."""
    import fcntl  # Unix only; the docker server, which needs no lock, runs elsewhere, too

    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:  # and not one that was removed while this process waited
                yield
                return
