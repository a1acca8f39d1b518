"""Whole messages between two processes on one machine.

``multiprocessing.connection`` has more, and takes as long to import as an interpreter to start.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Channel", "channels", "ready"]

_LENGTH = 8  # bytes that say how many follow
_MOST_DESCRIPTORS = 16


class Channel:
    """One end of a connected pair of sockets, which it owns."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """Readable when ``receive`` has something."""
        return self._socket.fileno()

    def send(self, message: bytes) -> None:
        """Raise ConnectionError if nobody has the other end open."""
        self._socket.sendall(len(message).to_bytes(_LENGTH, "little") + message)

    def receive(self) -> bytes:
        """Return the next message, waited for. Raises EOFError if there will be none."""
        return self._read(int.from_bytes(self._read(_LENGTH), "little"))

    def send_descriptors(self, descriptors: Sequence[int]) -> None:
        """Give the other process descriptors of its own for what these stand for, locks included.

        It has to call ``receive_descriptors`` between the same two messages.
        """
        socket.send_fds(self._socket, [b"\0"], descriptors)

    def receive_descriptors(self) -> Sequence[int]:
        """Receive what the other process passes on; processes started here do not inherit it."""
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, _MOST_DESCRIPTORS)
        for number in descriptors:
            os.set_inheritable(number, False)
        return descriptors

    def close(self) -> None:
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._socket.recv(min(size - len(data), 1 << 20))
            except ConnectionResetError:  # it ended with a message of ours unread
                piece = b""
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


def channels() -> tuple[Channel, Channel]:
    """Both ends; no process inherits them unless it is told to."""
    here, there = socket.socketpair()
    return Channel(here), Channel(there)


class _Readable(Protocol):
    def fileno(self) -> int: ...


Readable = TypeVar("Readable", bound=_Readable)


def ready(waited_for: Sequence[Readable], timeout: float | None) -> list[Readable]:
    """Those that can be read, or have come to their end, within so many seconds; None: forever."""
    poller = select.poll()
    for each in waited_for:
        poller.register(each, select.POLLIN)
    found = {number for number, _ in poller.poll(None if timeout is None else timeout * 1e3)}
    return [each for each in waited_for if each.fileno() in found]
