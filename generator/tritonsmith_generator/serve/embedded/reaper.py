"""Runs beside a server, as a program of its own, and cleans up if the process that owns it dies.

    python reaper.py SHM_PREFIX FOLDER

The owner writes the server's process group to this program's standard input, and "done" once
it has cleaned up itself. If the input ends without that, the owner was killed: the group is
killed, the server's shared memory and its temporary folder are removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

__all__ = ["clean", "kill_group"]


def kill_group(group: int) -> None:
    """SIGKILL for every process of the group: stubs whose server has died ignore SIGTERM."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def clean(shm_prefix: str, folder: str) -> None:
    """Remove the Python backend's shared memory and the temporary folder."""
    for region in Path("/dev/shm").glob(shm_prefix + "*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _main(shm_prefix: str, folder: str) -> None:
    group = 0
    for line in sys.stdin:
        if line.strip() == "done":
            return
        group = int(line)
    if group:
        kill_group(group)
    clean(shm_prefix, folder)


if __name__ == "__main__":
    _main(*sys.argv[1:])
