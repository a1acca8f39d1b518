"""Run a function in a fresh interpreter, so that a crash in a native library is a message.

The child is started, not forked: a fork of a process that holds threads or CUDA is broken. It gets
the parent's ``sys.path``, a session (and so a process group) of its own, and a pipe on which it
receives its work and sends its events, its result or its error. It may do several pieces of work.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from tritonsmith_generator.errors import HostError

__all__ = ["Child", "child", "run_isolated", "stop_running"]

Request = TypeVar("Request")
Event = TypeVar("Event")
Result = TypeVar("Result")

# The child runs this text, and not this file: a script's folder would be first on sys.path, and
# our own tensorrt.py in it would hide NVIDIA's.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tritonsmith_generator.worker import _serve; _serve(int(sys.argv[2]))"
)
_KEPT_OUTPUT = 64 * 1024  # bytes
_SHOWN_LINES = 16
_PATIENCE = 5.0  # seconds
_running: set[subprocess.Popen[bytes]] = set()  # not waited for yet, so their ids are theirs
_ADVICE = {
    signal.SIGKILL: "Most likely the kernel ended it because memory ran out: free memory or limit "
    "the workspace, then run again.",
    signal.SIGSEGV: "That is a fault in a native library: try another version of it, or simplify "
    "the model.",
    signal.SIGABRT: "A native library gave up; its last words are below. Try another version of "
    "it, or simplify the model.",
    signal.SIGBUS: "Most likely the disk or /dev/shm is full: free space, then run again.",
    signal.SIGILL: "This CPU lacks an instruction that the library was compiled for: use a build "
    "for this machine.",
    signal.SIGTERM: "Something asked it to stop; run again.",
}


def run_isolated(
    function: Callable[[Request, Callable[[Event], None]], Result],
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
        timeout: seconds until the child is killed; None waits as long as it takes.

    Raises:
        HostError: the child crashed, was killed or took longer than ``timeout``.
        Exception: whatever the function raised, of the same class and with the same text.

    When this raises, KeyboardInterrupt included, the child and all that it started are gone.
    """
    with child() as process:
        return process.run(function, request, on_event, what=what, timeout=timeout)


@contextmanager
def child() -> Iterator[Child]:
    """A process that does one piece of work after the other; gone, with all that it started, at
    the end of the block."""
    with _process() as (process, pipe, output):
        yield Child(process, pipe, output)


class Child:
    """A process made by ``child``."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection, output: _Output) -> None:
        self._process, self._pipe, self._output = process, pipe, output

    def prepare(self, function: Callable[[Request], object], request: Request) -> None:
        """Have ``function(request)`` called before the next work; returns at once.

        It is for what takes time to load: what it returns or raises is lost.
        """
        self._send(function, request, prepares=True)

    def run(
        self,
        function: Callable[[Request, Callable[[Event], None]], Result],
        request: Request,
        on_event: Callable[[Event], None],
        *,
        what: str = "the work",
        timeout: float | None = None,
    ) -> Result:
        """As ``run_isolated``; the process stays, unless it crashed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        last = "before its first step"
        self._send(function, request)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._pipe.poll(left):
                _kill(self._process)
                raise HostError(
                    f"{what} took longer than {timeout:g} s and was stopped {last}. "
                    "Allow more time, or make the work smaller."
                )
            try:
                kind, value = pickle.loads(self._pipe.recv_bytes())
            except (EOFError, ConnectionResetError):
                raise _crash(self._process, self._output, what, last) from None
            if kind == "event":
                last = f"in phase '{value}'"
                on_event(value)
            elif kind == "error":
                error, text = value
                raise error from _RemoteError(text)
            else:
                result: Result = value
                return result

    def _send(self, function: Any, request: Any, prepares: bool = False) -> None:
        with suppress(BrokenPipeError):  # it died: the end of the pipe tells when it is read
            self._pipe.send_bytes(pickle.dumps((function, request, prepares)))


def stop_running() -> None:
    """Kill what ``run_isolated`` runs in other threads; there each call raises HostError.

    For a caller with threads: Ctrl-C reaches the main thread only.
    """
    for process in tuple(_running):
        _kill(process)


class _RemoteError(Exception):
    """The child's traceback, shown as the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Output(threading.Thread):
    """Reads all that the child prints, so that it never blocks, and keeps the end of it."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._tail = bytearray()

    def run(self) -> None:
        while chunk := os.read(self._fd, 1 << 16):
            self._tail += chunk
            del self._tail[:-_KEPT_OUTPUT]
        os.close(self._fd)

    def finish(self) -> None:
        """Wait for the end; a daemon that left the child's group may hold the pipe open."""
        self.join(_PATIENCE)

    def last_lines(self) -> list[str]:
        self.finish()
        return self._tail.decode(errors="replace").splitlines()[-_SHOWN_LINES:]


@contextmanager
def _process() -> Iterator[tuple[subprocess.Popen[bytes], Connection, _Output]]:
    ours, theirs = Pipe()
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        os.close(read_end)
        raise
    finally:
        theirs.close()
        os.close(write_end)
    output = _Output(read_end)
    output.start()
    _running.add(process)
    try:
        yield process, ours, output
    finally:
        _running.discard(process)
        _end(process)
        output.finish()
        ours.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and all that it started; its id is ours until it is waited for."""
    if process.returncode is None:
        _kill(process)
        process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _crash(process: subprocess.Popen[bytes], output: _Output, what: str, last: str) -> HostError:
    if process.returncode is None:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    _end(process)  # what it started may hold its output open
    code = process.returncode
    if code < 0:
        number = signal.Signals(-code)
        how = f"was ended by {number.name} ({signal.strsignal(number)}) {last}"
        advice = _ADVICE.get(number, "Run it again.")
    else:
        how = f"left with exit code {code} {last}, without a result"
        advice = "Its last words are below."
    lines = output.last_lines()
    said = "\n  ".join(["It said last:", *lines]) if lines else "It had printed nothing."
    return HostError(f"{what} {how}. {advice}\n{said}")


def _serve(fd: int) -> None:
    """The child's main: take the work, do it, answer."""
    faulthandler.enable(all_threads=False)  # a native crash then tells which of our lines called
    os.set_inheritable(fd, False)
    pipe = Connection(fd)
    lock = threading.Lock()  # native libraries report progress from threads of their own

    def send(kind: str, value: Any) -> None:
        with lock:
            pipe.send_bytes(pickle.dumps((kind, value)))

    work = queue.SimpleQueue[bytes]()
    threading.Thread(target=_receive, args=(pipe, work), daemon=True).start()
    while True:
        prepares = False
        try:
            function, request, prepares = pickle.loads(work.get())
            if prepares:
                function(request)
            else:
                send("result", function(request, lambda event: send("event", event)))
        except Exception as exc:
            if not prepares:
                send("error", (_portable(exc), traceback.format_exc()))
        sys.stdout.flush()


def _receive(pipe: Connection, work: queue.SimpleQueue[bytes]) -> None:
    """Pass the work on. The pipe's end means that the parent is gone, however it ended."""
    with suppress(EOFError, OSError):
        while True:
            work.put(pipe.recv_bytes())
    os.killpg(0, signal.SIGKILL)


def _portable(exc: Exception) -> Exception:
    if isinstance(exc, MemoryError):
        return HostError("memory ran out: free memory, or use a smaller model or workspace")
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:
        return RuntimeError(f"{type(exc).__name__}: {exc}")
    return exc
