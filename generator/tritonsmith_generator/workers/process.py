"""Run functions in a fresh interpreter, so that a crash in a native library is a message.

The child is started, not forked: a fork of a process that holds threads or CUDA is broken (for the
exception see ``forked``). It gets the parent's ``sys.path``, a process group of its own, and a
channel on which it receives its work and sends its events, its result or its error. It may do
several pieces of work.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.workers.channel import Channel, channels, ready
from tritonsmith_generator.workers.crash import CrashError, Output
from tritonsmith_generator.workers.fork import Forked
from tritonsmith_generator.workers.main import CALL, HOLD, PREPARE, set_environment

if TYPE_CHECKING:
    import subprocess

__all__ = [
    "Child",
    "Function",
    "child",
    "early_child",
    "new_child",
    "run_isolated",
    "stop_running",
]

Request = TypeVar("Request")
Event = TypeVar("Event")
Result = TypeVar("Result")
# Module-level; it, its request, events and result can be pickled. What it emits are events.
Function = Callable[[Request, Callable[[Event], None]], Result]

# The child runs this text, and not a file: a script's folder would be first on sys.path, and
# our own tensorrt.py in it would hide NVIDIA's.
_BOOT = (
    "import sys; sys.path[:] = {path!r}; "
    "from tritonsmith_generator.workers.main import serve; serve({descriptor})"
)
_running: set[Child] = set()
_early: list[Child] = []


def run_isolated(
    function: Function[Request, Event, Result],
    request: Request,
    on_event: Callable[[Event], None],
    *,
    what: str = "the work",
    timeout: float | None = None,
) -> Result:
    """Call ``function(request, emit)`` in a new process and return what it returns.

    Args:
        function: a module-level function; it, its request, events and result can be pickled.
        on_event: called here with each value that the function passes to ``emit``.
        what: names the work in messages, e.g. ``"the engine build of resnet50.onnx"``.
        timeout: seconds until the process is killed; None waits as long as it takes.

    Raises:
        HostError: the process crashed, was killed or took longer than ``timeout``.
        Exception: whatever the function raised, of the same class and with the same text.

    When this raises, KeyboardInterrupt included, the process and all that it started are gone.
    """
    with child() as process:
        return process.run(function, request, on_event, what=what, timeout=timeout)


@contextmanager
def child(
    environment: Mapping[str, str] | None = None, held: Sequence[int] = (), fork: bool = False
) -> Iterator[Child]:
    """Provide a process that does one piece of work after the other.

    It is gone, with all that it started, at the end of the block. The arguments are ``Child``'s.
    """
    process = Child(environment, held, fork)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def early_child(fork: bool = False) -> Iterator[Child]:
    """Give a process that boots while the block goes on: the first that ``new_child`` gives in it.

    ``fork`` is as for ``Child``.
    """
    process = Child(fork=fork)
    _early.append(process)
    try:
        yield process
    finally:
        while _early:
            _early.pop().close()


def new_child(environment: Mapping[str, str], held: Sequence[int]) -> Child:
    """Return a process that has not worked yet. The arguments are those of ``Child``."""
    if not _early:
        return Child(environment, held)
    process = _early.pop()
    process.settle(environment, held)
    return process


def stop_running() -> None:
    """Kill all children; who waits for one of them, in another thread, gets a HostError.

    For a caller with threads: Ctrl-C reaches the main thread only.
    """
    for process in tuple(_running):
        process.stopped = True
        process.kill()


class Child:
    """A fresh interpreter that calls functions, one at a time. See ``child``.

    Args:
        environment: variables that differ from this process's.
        held: descriptors that stay open until the process has ended, such as that of a lock.
        fork: whether it may be a fork of this process, which is there at once; see ``forked``.

    Attributes:
        last: how far the function is, in words: its last event.
        stopped: whether ``stop_running`` has killed it.

    Raises HostError where no process can be started.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        held: Sequence[int] = (),
        fork: bool = False,
    ) -> None:
        self.last = ""
        self.stopped = False
        self._what = ""
        self._channel, theirs = channels()
        read_end, write_end = os.pipe()
        self._process: Forked | subprocess.Popen[bytes]
        try:
            self._process = (Forked if fork else _started)(theirs, write_end)
        except BaseException as exc:
            self._channel.close()
            os.close(read_end)
            if not isinstance(exc, OSError):
                raise
            raise HostError(
                f"no process could be started ({exc.strerror}): free memory, end other processes, "
                "or build fewer models at a time (--jobs)"
            ) from exc
        finally:
            theirs.close()
            os.close(write_end)
        self._output = Output(read_end)
        self._output.start()
        _running.add(self)
        self.settle(environment or {}, held)

    def settle(self, environment: Mapping[str, str], held: Sequence[int]) -> None:
        """Before its first work: variables and descriptors as for a new one."""
        if environment:
            self.prepare(set_environment, dict(environment))
        if held:
            with suppress(ConnectionError):
                self._channel.send(HOLD)
                self._channel.send_descriptors(held)

    def fileno(self) -> int:
        """For ``channel.ready``: readable when ``receive`` has something."""
        return self._channel.fileno()

    def submit(self, function: Function[Any, Any, Any], request: Any, what: str) -> None:
        """Have a function called; the one before, if any, has answered."""
        self._what, self.last = what, "before its first step"
        self._output.forget()
        self._send(CALL, function, request)

    def prepare(self, function: Callable[[Request], object], request: Request) -> None:
        """Have ``function(request)`` called before the next work; returns at once.

        It is for what takes time to load: what it returns or raises is lost.
        """
        self._send(PREPARE, function, request)

    def run(
        self,
        function: Function[Request, Event, Result],
        request: Request,
        on_event: Callable[[Event], None],
        *,
        what: str = "the work",
        timeout: float | None = None,
    ) -> Result:
        """As ``run_isolated``; the process stays, unless it crashed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self.submit(function, request, what)
        while True:
            if not self.poll(None if deadline is None else max(0.0, deadline - time.monotonic())):
                self.kill()
                raise HostError(
                    f"{what} took longer than {timeout:g} s and was stopped {self.last}. "
                    "Allow more time, or make the work smaller."
                )
            kind, value = self.receive()
            if kind == "error":
                raise value
            if kind == "result":
                result: Result = value
                return result
            on_event(value)

    def poll(self, timeout: float | None) -> bool:
        """Whether ``receive`` has something within so many seconds."""
        return bool(ready([self._channel], timeout))

    def receive(self) -> tuple[Literal["event", "result", "error"], Any]:
        """Return the next event, or how the function ended.

        Raises CrashError if the process died.
        """
        try:
            kind, value = pickle.loads(self._channel.receive())
        except EOFError:
            raise self._crashed() from None
        if kind == "error":
            value, text = value
            value.__cause__ = _RemoteError(text)
        if kind == "event":
            self.last = f"in phase '{value}'"
        return kind, value

    def memory(self) -> int:
        """Return the bytes that it holds in memory now; 0 where the system doesn't tell."""
        try:
            with open(f"/proc/{self._process.pid}/statm") as file:  # noqa: PTH123  # asked often
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    def kill(self) -> None:
        """Kill the process and all that it started, without waiting for their end."""
        # Until it is waited for, its id is its own.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and all that it started."""
        _running.discard(self)
        self._end()
        self._output.finish()
        self._channel.close()

    def _send(self, kind: bytes, function: Any, request: Any) -> None:
        with suppress(ConnectionError):  # it died: the end of the channel tells when it is read
            self._channel.send(kind + pickle.dumps((function, request)))

    def _end(self) -> None:
        self.kill()
        self._process.wait()

    def _crashed(self) -> CrashError:
        # Its exit code is its own only if it has ended before we end what it started.
        if self._process.returncode is None:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        _running.discard(self)
        self._end()  # what it started may hold its output open
        lines = self._output.last_lines()
        return CrashError.of(self._process.wait(), self._what, self.last, lines)


def _started(channel: Channel, output: int) -> subprocess.Popen[bytes]:
    import subprocess  # not where a fork is enough

    return subprocess.Popen(
        [sys.executable, "-c", _BOOT.format(path=sys.path, descriptor=channel.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(channel.fileno(),),
        start_new_session=True,
    )


class _RemoteError(Exception):
    """The child's traceback, shown as the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
