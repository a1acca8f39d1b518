"""Names of regions that say whose they are, so that those of processes which have ended can be told
from all others and be cleared away."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_abandoned", "region_name"]

_PREFIX = "tritonsmith_client"
_START = 19  # of the fields in /proc/PID/stat that follow the program's name


def region_name() -> str:
    """A name that nobody can guess and no other process uses."""
    owner = f"{os.getpid()}_{_started(os.getpid())}_{_namespace()}"
    return f"{_PREFIX}_{owner}_{os.urandom(8).hex()}"


def is_abandoned(name: str) -> bool:
    """Whether a region was made by a process of this client that has ended.

    False where that cannot be known, as for processes in another container.
    """
    parts = name.removeprefix(_PREFIX + "_").split("_")
    if not name.startswith(_PREFIX) or len(parts) != 4 or not parts[0].isdecimal():
        return False
    process, started, namespace, _ = parts
    return namespace == _namespace() != "" and started != _started(int(process))


def _started(process: int) -> str:
    """When a process started, in clock ticks since the machine did; empty if it is not there."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[_START]


def _namespace() -> str:
    """The process numbers' namespace; empty where there is none."""
    try:
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return ""
