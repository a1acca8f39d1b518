"""Whole messages between two processes, over a pair of pipes.

``multiprocessing.connection`` has more, and takes as long to import as an interpreter to start.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Channel", "channels", "ready"]

_LENGTH = 8  # bytes that say how many follow


class Channel:
    """One end. ``incoming`` and ``outgoing`` are descriptors of pipes, which it owns."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming, self.outgoing = incoming, outgoing

    def fileno(self) -> int:
        """Readable when ``receive`` has something."""
        return self.incoming

    def send(self, message: bytes) -> None:
        """Raises BrokenPipeError if nobody has the other end open."""
        left = memoryview(len(message).to_bytes(_LENGTH, "little") + message)
        while left:
            left = left[os.write(self.outgoing, left) :]

    def receive(self) -> bytes:
        """The next message, waited for. Raises EOFError if there will be none."""
        return self._read(int.from_bytes(self._read(_LENGTH), "little"))

    def close(self) -> None:
        os.close(self.incoming)
        os.close(self.outgoing)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self.incoming, size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


def channels() -> tuple[Channel, Channel]:
    """Both ends; no process inherits them unless it is told to."""
    (there, here), (back, forth) = os.pipe(), os.pipe()
    return Channel(back, here), Channel(there, forth)


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
