"""Names of regions that say whose they are.

Those of processes which have ended can be told from all others and be cleared away.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_abandoned", "region_name"]

_PREFIX = "tritonsmith_client"
_STATE, _START = 0, 19  # among the fields in /proc/PID/stat that follow the program's name


def region_name() -> str:
    """Return a name that nobody can guess and no other process uses."""
    owner = f"{os.getpid()}_{_started(os.getpid())}_{_namespace()}"
    return f"{_PREFIX}_{owner}_{os.urandom(8).hex()}"


def is_abandoned(name: str) -> bool:
    """Whether a region was made by a process of this client that has ended.

    False where that cannot be known, as for processes in another container, or on another machine
    whose server is reached through a forwarded port.
    """
    parts = name.removeprefix(_PREFIX + "_").split("_")
    if not name.startswith(_PREFIX) or len(parts) != 4 or not parts[0].isdecimal():
        return False
    process, started, namespace, _ = parts
    return namespace == _namespace() != "" and _has_ended(int(process), started)


def _has_ended(process: int, started: str) -> bool:
    state = _state(process)
    if state:  # a zombie holds no memory, and may never be waited for
        return state[_START] != started or state[_STATE] == "Z"
    try:  # /proc may hide the processes of other users
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _started(process: int) -> str:
    """When a process started, in clock ticks since the machine did; empty if it is not there."""
    state = _state(process)
    return state[_START] if state else ""


def _state(process: int) -> list[str]:
    """Return what the system says about a process; nothing if it is not there, or hidden."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()  # a program's name may be any bytes
    except OSError:
        return []
    return stat.rpartition(b")")[2].decode().split()


def _namespace() -> str:
    """Return where a process is known by its number; empty where there is no such place.

    It is the kernel as it was started, and the numbers' namespace, whose own number is the same on
    many machines.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]") + "-" + boot
    except OSError:
        return ""
