"""What is left behind is told from what other runs leave, which may go on beside this one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.http_calls import until
from support.leftovers import MARK, Leftovers

# Makes a region like those of a server that it owns, and its command line is like that of a server.
OWNER = """
import os, sys
name = f"tritonsmith_{os.getpid()}_{sys.argv[1]}_"
open(f"/dev/shm/{name}", "x").close()
print(name, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def owner(mark: str) -> Iterator[tuple[int, str]]:
    """A process of that run, and the name of its region, which outlives it."""
    command = [sys.executable, "-c", OWNER, uuid.uuid4().hex[:12], "tritonserver"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env={**os.environ, MARK: mark}, stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        yield process.pid, name
        process.communicate()


def test_only_what_is_our_own_is_found(leftovers: Leftovers) -> None:
    before = leftovers.found()
    own = os.environ[MARK]
    marks = ("", uuid.uuid4().hex, own + "1", own)  # the third: another process of this run
    names: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            pids = []
            for mark in marks:
                pid, name = stack.enter_context(owner(mark))
                pids.append(pid)
                names.append(name)
            until(lambda: f"{own}/{names[-1]}" in leftovers.notes.read_text())
            (found,) = leftovers.found() - before  # the region has an owner yet
            assert found.startswith(f"{pids[-1]}: ")
            with pytest.raises(AssertionError, match=f"left behind: .*{pids[-1]}: "):
                leftovers.wait_until_gone(before, seconds=0.2)
        assert leftovers.found() - before == {names[-1]}
    finally:
        for name in names:
            Path("/dev/shm", name).unlink()
    leftovers.wait_until_gone(before)
