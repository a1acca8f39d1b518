"""What test_tasks.py runs side by side: functions of the processes that it is about."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tritonsmith_generator.events import Event

Emit = Callable[[Event], None]

_seen: list[str] = []


def process_id(_: object, emit: Emit) -> int:
    return os.getpid()


def overlaps(request: tuple[Path, str, str, float], emit: Emit) -> bool:
    """Whether the other one is at work at the same time; it is waited for so many seconds."""
    folder, name, other, seconds = request
    over = (folder / f"{other}.over").exists()
    (folder / name).touch()
    deadline = time.monotonic() + seconds
    while not over and not (met := (folder / other).exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    (folder / f"{name}.over").touch()
    return not over and met


def takes_memory(size: int, emit: Emit) -> int:
    """Allocate so many bytes, keep them, and say whose they are."""
    _seen.append("x" * size)
    return os.getpid()


def crashes_after_another(name: str, emit: Emit) -> str:
    """As memory that the task before has spoilt would have it."""
    if _seen:
        ctypes.string_at(0)
    _seen.append(name)
    return name


def refuses(text: str, emit: Emit) -> None:
    raise ValueError(text)


def environment(names: tuple[str, ...], emit: Emit) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def counts_descriptors(path: Path, emit: Emit) -> int:
    """How many of this process's descriptors are open on a path."""
    links = Path("/proc/self/fd").iterdir()
    return sum(link.exists() and link.samefile(path) for link in links)


def is_killed_beside(places: tuple[Path, str], emit: Emit) -> bool:
    """Task "a" is killed once, beside "b"; "b" says whether "a" came again while it was at work."""
    folder, name = places
    if name == "a" and (folder / "killed").exists():
        (folder / "again").touch()
        return False
    if name == "a":
        _wait_for(folder / "b")
        (folder / "killed").touch()  # for when it comes again
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "b").touch()
    _wait_for(folder / "told")  # "a" waits for its turn
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if (folder / "again").exists():
            return True
        time.sleep(0.01)
    return False


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} does not come"
        time.sleep(0.01)
