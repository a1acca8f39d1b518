"""What runs in a child process: it takes functions from the pipe, calls them, answers."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from tritonsmith_generator.channel import Channel
from tritonsmith_generator.errors import HostError

__all__ = ["serve"]


def serve(incoming: int, outgoing: int, *held: int) -> None:
    """Call what arrives on the pipe ``incoming``, one function at a time, until the parent is gone.

    ``held`` are descriptors that only have to stay open; neither they nor the pipes are for
    processes that a function starts.
    """
    faulthandler.enable(all_threads=False)  # a native crash then tells which of our lines called
    for number in (incoming, outgoing, *held):
        os.set_inheritable(number, False)
    parent = Channel(incoming, outgoing)
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(parent, requests), daemon=True).start()
    while True:
        _answer(parent, requests.get())


def _receive(parent: Channel, requests: SimpleQueue[bytes]) -> None:
    """Pass on what the parent sends. Its end of the pipe closes when it ends, however it does."""
    with suppress(EOFError, OSError):
        while True:
            requests.put(parent.receive())
    os.killpg(0, signal.SIGKILL)


def _answer(parent: Channel, request: bytes) -> None:
    lock = threading.Lock()  # native libraries report progress from threads of their own

    def send(kind: str, value: Any) -> None:
        with lock:
            parent.send(pickle.dumps((kind, value)))

    prepares = False
    try:
        function, argument, prepares = pickle.loads(request)
        if prepares:
            function(argument)
        else:
            send("result", function(argument, lambda event: send("event", event)))
    except Exception as exc:
        if not prepares:
            from traceback import format_exc  # takes time to import, and most calls go well

            send("error", (_portable(exc), format_exc()))
    sys.stdout.flush()


def _portable(exc: Exception) -> Exception:
    if isinstance(exc, MemoryError):
        return HostError("memory ran out: free memory, or use a smaller model or workspace")
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:
        return RuntimeError(f"{type(exc).__name__}: {exc}")
    return exc
