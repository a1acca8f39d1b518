"""A total budget of time for one call, over all its connects, sends, receives and retries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import ABOVE_0, or_none, seconds
from tritonsmith_client.errors import RequestCancelledError

__all__ = ["TIMEOUT", "CancellableDeadline", "Deadline"]

TIMEOUT = Argument(
    "timeout", or_none(seconds("above 0", ", or None for no deadline", least=ABOVE_0))
)


class Deadline:
    """A moment on the monotonic clock, or never."""

    __slots__ = ("at", "budget")

    def __init__(self, budget: float | None) -> None:
        """Start now. Args: budget: seconds, or None for no deadline."""
        self.budget = budget
        self.at = None if budget is None else time.monotonic() + budget

    def remaining(self) -> float | None:
        """Seconds left, never below 0; None where there is no deadline."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def left(self) -> float | None:
        """As `remaining`, but above 0. Raises TimeoutError where nothing is left."""
        if self.at is None:
            return None
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def __str__(self) -> str:
        return "no deadline" if self.budget is None else f"deadline of {self.budget:g} s"


class CancellableDeadline(Deadline):
    """The deadline of a call in another thread, which can be ended early."""

    __slots__ = ("_abort", "_lock", "cancelled")

    def __init__(self, budget: float | None) -> None:
        super().__init__(budget)
        self.cancelled = False
        self._abort: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def on_cancel(self, abort: Callable[[], object] | None) -> None:
        """Set what ends the I/O that is going on; None once it is over.

        Raises:
            RequestCancelledError: the call has been cancelled already.
        """
        with self._lock:
            self._abort = abort
            cancelled = self.cancelled
        if cancelled and abort is not None:
            abort()
            raise RequestCancelledError("the call was cancelled", status="CANCELLED")

    @classmethod
    def like(cls, deadline: Deadline) -> CancellableDeadline:
        """One that ends at the same time as another, and can be cancelled without it."""
        made = cls(deadline.budget)
        made.at = deadline.at
        return made

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            if self._abort is not None:  # held back while it runs: nobody else's I/O is ended
                self._abort()
