"""Looking a name up takes as long as the name service likes, and cannot be interrupted.

A thread does it, which whoever asks waits for as long as there is time.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from tritonsmith_client._net.deadline import Deadline

__all__ = ["Outcome", "Places", "found", "is_literal", "look_up", "start_look_up"]

Places = list[tuple[Any, Any, int, str, Any]]  # of getaddrinfo
Outcome = Places | OSError
_Done = Callable[[Outcome], object]

_lock = threading.Lock()
_waiting: dict[tuple[str, int], list[_Done]] = {}  # for what is being looked up


def look_up(host: str, port: int, deadline: Deadline) -> Places:
    """Return the addresses of a host. Raises OSError, TimeoutError when the time is over."""
    if deadline.at is None or is_literal(host):
        return found(_ask(host, port))
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    start_look_up(host, port, outcomes.put)
    try:
        return found(outcomes.get(timeout=deadline.left()))
    except Empty:
        raise TimeoutError("the name service did not answer") from None


def start_look_up(host: str, port: int, done: _Done) -> None:
    """Look a name up in another thread, one for all who ask for it meanwhile.

    Args:
        done: called there with the outcome.
    """
    with _lock:
        waiting = _waiting.setdefault((host, port), [])
        waiting.append(done)
        first = len(waiting) == 1
    if first:
        try:  # a daemon: no program waits for it at its end
            threading.Thread(target=_work, args=(host, port), daemon=True).start()
        except RuntimeError:  # no more threads are to be had
            _work(host, port)


def found(outcome: Outcome) -> Places:
    """Return the addresses. Raises the OSError, anew for each who waited."""
    if isinstance(outcome, OSError):
        raise type(outcome)(*outcome.args)
    return outcome


def is_literal(host: str) -> bool:
    """Whether it is an IP address, for which nobody has to be asked."""
    try:
        return ":" in host or bool(socket.inet_aton(host))
    except OSError:
        return False


def _work(host: str, port: int) -> None:
    outcome = _ask(host, port)
    with _lock:
        waiting = _waiting.pop((host, port), [])
    for done in waiting:
        done(outcome)


def _ask(host: str, port: int) -> Outcome:
    try:
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as exc:
        return exc
    except UnicodeError as exc:  # a label that is too long, or empty
        return OSError(f"no host has the name: {exc}")


def _forget() -> None:
    """A forked child has none of the threads."""
    global _lock
    _lock = threading.Lock()
    _waiting.clear()


os.register_at_fork(after_in_child=_forget)
