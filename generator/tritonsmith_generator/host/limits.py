"""What this process may use of the machine: cores and memory, limits of containers included.

Containers limit by control groups, whose files say it; version 1 and 2 of them are read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores", "free_memory", "threads"]

_ROOT = Path("/")


def cores(root: Path = _ROOT) -> int:
    """How many threads can run at once, at least 1. ``root`` is where /proc and /sys lie."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:  # macOS
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *_quotas(root)]))


def threads() -> int:
    """How many threads a library may start: OMP_NUM_THREADS; 0 (its own choice) if that is unset.

    ONNX Runtime doesn't heed that variable by itself.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() else 0


def free_memory(root: Path = _ROOT) -> int:
    """Bytes that can be taken before the system swaps or kills; all there is where none says it."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        available = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    except (OSError, ValueError, IndexError):
        return sys.maxsize
    return max(0, min([available.get("MemAvailable", sys.maxsize), *_left_in_groups(root)]))


def _quotas(root: Path) -> Iterator[int]:
    for folder in _groups(root, "cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if words := _words(folder / "cpu.max"):
            quota, period = (int(word) if word.isdigit() else None for word in words)
        if quota and period and quota > 0:
            yield -(-quota // period)  # half a core is a thread, too


def _left_in_groups(root: Path) -> Iterator[int]:
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for folder in _groups(root, "memory"):
        for most, used, cache in names:
            limit, usage = _number(folder / most), _number(folder / used)
            if limit is not None and usage is not None:
                words = _words(folder / "memory.stat")
                counts = dict(zip(words[::2], words[1::2], strict=False))
                # What was read from files and can be dropped counts as used there.
                yield limit - usage + int(counts.get(cache, 0))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the control groups that this process is in, from the innermost to the outermost."""
    home = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = home / controller if controllers else home
        inner = top / path.lstrip("/")
        # Inside a container the path may be the host's: the top is then the container's own.
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None
