"""What tests must not leave behind: processes and shared memory of embedded servers.

Other runs may go on beside this one, so its own are told by a mark, which every process that a test
starts inherits, however far down. Shared memory outlives its owner and bears no more than the
owner's number: a program that runs beside the tests notes whose it is, while the owner lives.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MARK", "Leftovers", "start_notes"]

MARK = "TRITONSMITH_TEST_RUN"  # the variable of the environment
_LOOK = 0.05  # seconds between two looks at the shared memory; owners of servers live longer


class Leftovers:
    """What there is of all that one process of a run has started.

    Args:
        notes: where the run's shared memory is noted, see `start_notes`.
        process: the name of this one of its processes.
    """

    def __init__(self, notes: Path, process: str) -> None:
        self.notes = notes
        self._mark = f"{notes.name}.{process}"
        os.environ[MARK] = self._mark

    def found(self) -> frozenset[str]:
        return frozenset([*self._server_processes(), *self._regions()])

    def wait_until_gone(self, before: frozenset[str] = frozenset(), seconds: float = 20.0) -> None:
        """Fails if more than was there before stays for so many seconds."""
        deadline = time.monotonic() + seconds
        while left := self.found() - before:
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)

    def _server_processes(self) -> Iterator[str]:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has just ended
                continue
            of_server = "tritonserver" in command or "/embedded/reaper.py" in command
            if of_server and _mark(entry.name) == self._mark:
                yield f"{entry.name}: {command}"

    def _regions(self) -> Iterator[str]:
        """Those whose owner has ended or is this very process."""
        noted = set(self.notes.read_text().split())
        for name in _regions():
            owner = _owner(name)
            if owner == str(os.getpid()) or (
                f"{self._mark}/{name}" in noted and not Path("/proc", owner).exists()
            ):
                yield name


def start_notes() -> tuple[Path, subprocess.Popen[bytes]]:
    """The file where a new run's shared memory is noted, and the program that does it.

    It ends, and removes the file, when its standard input is closed.
    """
    notes = Path(tempfile.gettempdir(), f"tritonsmith-test-{uuid.uuid4().hex}")
    notes.touch()
    return notes, subprocess.Popen([sys.executable, __file__, notes], stdin=subprocess.PIPE)


def _take_notes(notes: Path) -> None:
    """Note each region of the run that comes, with its owner's mark."""
    seen = set(_regions())
    with notes.open("a", buffering=1) as file:
        while not select.select([sys.stdin], [], [], _LOOK)[0]:
            for name in set(_regions()) - seen:
                seen.add(name)
                mark = _mark(_owner(name))
                if mark.startswith(notes.name):
                    file.write(f"{mark}/{name}\n")
    notes.unlink()


def _regions() -> set[str]:
    return {region.name for region in Path("/dev/shm").glob("tritonsmith_[0-9]*")}


def _owner(region: str) -> str:
    return region.split("_")[1]


def _mark(pid: str) -> str:
    """That of a process; empty if it has none, has ended or is another user's."""
    try:
        environment = Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    marks = (line.decode() for line in environment if line.startswith(f"{MARK}=".encode()))
    return next(marks, "").partition("=")[2]


if __name__ == "__main__":
    _take_notes(Path(sys.argv[1]))
