"""The deadline of one call after the other over a connection of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tritonsmith_client._net.deadline import Deadline

__all__ = ["CallTimer"]


class CallTimer:
    """Calls `ring` if a call's deadline passes before `off` is called.

    Nearly every call ends in time, and a timer of the event loop for each of them would cost more
    than the rest of the bookkeeping. So one timer outlives many calls: when it fires before the
    deadline that counts by then, it is only set again.
    """

    __slots__ = ("_at", "_loop", "_ring", "_timer")

    def __init__(self, ring: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def on(self, deadline: Deadline) -> None:
        """Raise TimeoutError where nothing is left of the deadline."""
        left = deadline.left()
        if left is None:
            return
        self._at = at = self._loop.time() + left
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look)

    def off(self) -> None:
        self._at = None

    def close(self) -> None:
        """For a connection that is not used again: lets go of the timer too."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        at, self._timer = self._at, None
        if at is None:  # between two calls
            return
        if self._loop.time() >= at:
            self._ring()
        else:
            self._timer = self._loop.call_at(at, self._look)
