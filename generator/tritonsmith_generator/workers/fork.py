"""A process that goes on from where this one is: there at once, with all that was imported.

Only for a process that has no other thread, and neither CUDA nor a library with threads: a command
that is not parsed yet, a child process before its first call. Elsewhere a fork is broken.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from tritonsmith_generator.workers.channel import Channel
from tritonsmith_generator.workers.main import work

__all__ = ["Forked"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Forked:
    """It has a process group of its own, and answers on ``channel`` as ``workermain`` does.

    ``output`` is the descriptor for what it prints.
    """

    def __init__(self, channel: Channel, output: int) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _live(channel, output)
        with suppress(ProcessLookupError):  # both do so: it isn't known who comes first
            os.setpgid(self.pid, self.pid)

    def wait(self) -> int:
        """Wait for its end; the exit code, or minus the number of the signal that ended it."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def _live(channel: Channel, output: int) -> NoReturn:
    try:
        os.setpgid(0, 0)
        _end_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _close_all_but(0, 1, 2, channel.fileno())
        work(channel)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)  # it must not go on with what its parent was doing


def _end_with_parent() -> None:
    """At once, also while TensorRT starts: it holds Python's lock, so nobody hears the channel."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _close_all_but(*kept: int) -> None:
    """Close the other's socket: one that is open twice does not tell when a process ends."""
    opened = os.listdir("/proc/self/fd")  # noqa: PTH208  # pathlib is not loaded yet
    for number in {*map(int, opened)} - {*kept}:
        with suppress(OSError):  # that of the listing is closed already
            os.close(number)
