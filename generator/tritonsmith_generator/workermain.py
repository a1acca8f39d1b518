"""What runs in a child process: it takes functions from the pipe, calls them, answers."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from tritonsmith_generator.errors import HostError

__all__ = ["serve"]


def serve(fd: int, *held: int) -> None:
    """Call what arrives on the pipe ``fd``, one function at a time, until the parent is gone.

    ``held`` are descriptors that only have to stay open; neither they nor the pipe are for
    processes that a function starts.
    """
    faulthandler.enable(all_threads=False)  # a native crash then tells which of our lines called
    for number in (fd, *held):
        os.set_inheritable(number, False)
    pipe = Connection(fd)
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, requests), daemon=True).start()
    while True:
        _answer(pipe, requests.get())


def _receive(pipe: Connection, requests: SimpleQueue[bytes]) -> None:
    """Pass on what the parent sends. Its end of the pipe closes when it ends, however it does."""
    with suppress(EOFError, OSError):
        while True:
            requests.put(pipe.recv_bytes())
    os.killpg(0, signal.SIGKILL)


def _answer(pipe: Connection, request: bytes) -> None:
    lock = threading.Lock()  # native libraries report progress from threads of their own

    def send(kind: str, value: Any) -> None:
        with lock:
            pipe.send_bytes(pickle.dumps((kind, value)))

    prepares = False
    try:
        function, argument, prepares = pickle.loads(request)
        if prepares:
            function(argument)
        else:
            send("result", function(argument, lambda event: send("event", event)))
    except Exception as exc:
        if not prepares:
            send("error", (_portable(exc), traceback.format_exc()))
    sys.stdout.flush()


def _portable(exc: Exception) -> Exception:
    if isinstance(exc, MemoryError):
        return HostError("memory ran out: free memory, or use a smaller model or workspace")
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:
        return RuntimeError(f"{type(exc).__name__}: {exc}")
    return exc
