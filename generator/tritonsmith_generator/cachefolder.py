"""Folders in the user's cache that are made once, by one process at a time, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tritonsmith_generator.errors import HostError

__all__ = ["cache_folder", "is_intact", "make_once"]

_MANIFEST = "manifest.json"


def cache_folder(part: str) -> Path:
    """$XDG_CACHE_HOME/tritonsmith/PART, or ~/.cache/tritonsmith/PART; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "tritonsmith" / part


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return ``folder``; if it is missing or broken, ``make`` fills a new one that replaces it.

    Processes that want the same folder wait for the one that makes it. A killed or failed
    ``make`` leaves nothing that is taken for a finished folder.
    """
    if is_intact(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_name(folder.name + ".lock")):
            if not is_intact(folder):
                _replace(folder, make)
    except OSError as exc:
        raise HostError(
            f"Could not write to the cache folder {folder}: {exc}. The embedded server needs "
            "about 350 MB there, a plan as much as itself; XDG_CACHE_HOME names another place."
        ) from exc
    return folder


def is_intact(folder: Path) -> bool:
    """Whether every file is there with its size; a few milliseconds, contents are not read."""
    try:
        files = json.loads((folder / _MANIFEST).read_text())
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def _replace(folder: Path, make: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(folder.name + ".tmp-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + ".tmp-"))
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
def _lock(path: Path) -> Iterator[None]:
    import fcntl  # Unix only; the docker server, which needs no lock, runs elsewhere, too

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
