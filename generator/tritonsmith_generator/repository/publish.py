"""Writing a model into a repository: compared, staged beside it, put in place at once.

A model's folder is exchanged as a whole, so that whoever loads it sees the old or the new one
and nothing in between. Versions that exist already are hard links in the new folder: they are
immutable, kept for a rollback, and cost no space.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.repository.changes import Content, compare
from tritonsmith_generator.repository.lock import FileRecord

__all__ = ["exclusive", "next_version", "publish"]


def next_version(folder: Path, artifact: Mapping[str, Content]) -> int:
    """Return the newest version in ``folder`` if it holds these files, or the next free one."""
    numbers = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] or [0]
    newest = max(numbers)
    versioned = {f"{newest}/{name}": content for name, content in artifact.items()}
    same = compare(folder.parent, folder.name, versioned, {})
    return newest if newest and all(c.action == "identical" for c in same) else newest + 1


@contextmanager
def exclusive(repository: Path) -> Iterator[int]:
    """Make the repository's folder and keep other runs of gen-repo out of it.

    Yields the descriptor of the lock: a process that holds it open keeps others out, too. Also
    removes what killed processes left behind, of an earlier run and of this one. Raises HostError
    if another run is at work there or the folder cannot be written.
    """
    made = not repository.exists()
    with _host_errors(repository):
        repository.mkdir(parents=True, exist_ok=True)
        handle = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise HostError(
                f"another gen-repo is writing to {repository}: wait for it to end"
            ) from exc
        _recover(repository)
        try:
            yield handle
        finally:
            _recover(repository)
    finally:
        os.close(handle)
        if made and not any(repository.iterdir()):
            repository.rmdir()  # leave the disk as it was found


def publish(repository: Path, name: str, files: Mapping[str, Content]) -> Mapping[str, FileRecord]:
    """Put the files into the model's folder, all at once; other files in it are kept.

    Everything is on the disk (fsync) before it is put in place. Returns each file's record. Raises
    HostError when the disk is full or not writable; the repository is then as it was.
    """
    from concurrent.futures import ThreadPoolExecutor  # not for a run with nothing to do

    with _host_errors(repository), _staging(repository) as staging:
        new, current = staging / name, repository / name
        if current.exists():
            shutil.copytree(current, new, copy_function=os.link, symlinks=True)
        for path, content in files.items():
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # never write through a hard link
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
        folders = {new, *(p for p in new.rglob("*") if p.is_dir() and not p.is_symlink())}
        with ThreadPoolExecutor() as pool:  # hashed while they travel to the disk
            synced = pool.map(_sync, [*(new / path for path in files), *folders])
            records = {path: FileRecord.of(new / path) for path in files}
            list(synced)  # raises what failed
        _put_in_place(new, current)
        _sync(repository)
        return records


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """Give a folder on the repository's own file system, outside it unless it is a mount point."""
    folder = Path(
        tempfile.mkdtemp(prefix=_staging_prefix(repository), dir=_staging_home(repository))
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _staging_home(repository: Path) -> Path:
    parent = repository.resolve().parent
    beside = parent.stat().st_dev == repository.stat().st_dev and os.access(parent, os.W_OK)
    return parent if beside else repository


def _staging_prefix(repository: Path) -> str:
    return f".{repository.resolve().name}.staging-"


def _recover(repository: Path) -> None:
    """Remove the staging folders of runs that were killed; put back a model that was set aside."""
    for folder in _staging_home(repository).glob(f"{_staging_prefix(repository)}*"):
        for aside in folder.glob(f"*{_ASIDE}"):
            home = repository / aside.name.removesuffix(_ASIDE)
            if not home.exists():
                aside.rename(home)
        shutil.rmtree(folder, ignore_errors=True)


# Linux: renameat2(2), for an exchange in one step.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# File systems without it (NFS, some FUSE): the old folder is set aside under this ending first.
_ASIDE = ".aside"


def _put_in_place(new: Path, current: Path) -> None:
    if not current.exists():
        new.rename(current)
        return
    if _exchange(new, current):
        return
    aside = new.with_name(new.name + _ASIDE)
    current.rename(aside)
    try:
        new.rename(current)
    except OSError:
        aside.rename(current)
        raise


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(b))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _host_errors(repository: Path) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as exc:
        raise InputError(f"{repository}: a file is in the way: {exc}") from exc
    except FileExistsError as exc:
        raise InputError(f"{repository} is a file, not a folder for a model repository") from exc
    except OSError as exc:
        raise HostError(
            f"cannot write to {repository}: {exc.strerror or exc}; nothing in it was changed"
        ) from exc
