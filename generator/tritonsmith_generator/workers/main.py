"""What runs in a child process: it takes functions from the pipe, calls them, answers."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NoReturn

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.workers.channel import Channel

__all__ = ["CALL", "HOLD", "PREPARE", "serve", "set_environment", "work"]

# How a message begins; a pickled function and its argument follow. Only a call is answered.
PREPARE, CALL = b"p", b"c"
# A message by itself: descriptors follow that have to stay open until the process has ended.
HOLD = b"h"


def serve(descriptor: int) -> NoReturn:
    """Call what arrives on this socket, one function at a time, until the parent is gone."""
    os.set_inheritable(descriptor, False)
    work(Channel(socket.socket(fileno=descriptor)))


def work(parent: Channel) -> NoReturn:
    """As ``serve``, for a channel of this process."""
    faulthandler.enable(all_threads=False)  # a native crash then tells which of our lines called
    messages: SimpleQueue[bytes] = SimpleQueue()
    with suppress(EOFError):
        # There is no thread until the first call: what is prepared may fork this process.
        while not (message := parent.receive()).startswith(CALL):
            if message == HOLD:
                parent.receive_descriptors()
            else:
                _answer(parent, message)
        messages.put(message)
        threading.Thread(target=_receive, args=(parent, messages), daemon=True).start()
        while True:
            _answer(parent, messages.get())
    _end()


def set_environment(variables: Mapping[str, str]) -> None:
    """To be prepared: libraries that are loaded later see them."""
    os.environ.update(variables)


def _receive(parent: Channel, messages: SimpleQueue[bytes]) -> None:
    """Pass on what the parent sends. Its end of the pipe closes when it ends, however it does."""
    with suppress(EOFError, OSError):
        while True:
            messages.put(parent.receive())
    _end()


def _end() -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("SIGKILL cannot be survived")


def _answer(parent: Channel, message: bytes) -> None:
    lock = threading.Lock()  # native libraries report progress from threads of their own

    def send(kind: str, value: Any) -> None:
        with lock:
            parent.send(pickle.dumps((kind, value)))

    prepares = message.startswith(PREPARE)
    try:
        function, argument = pickle.loads(memoryview(message)[1:])
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
