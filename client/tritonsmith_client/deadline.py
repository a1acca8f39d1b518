"""A total budget of time for one call, over all its connects, sends, receives and retries."""

from __future__ import annotations

import time

__all__ = ["Deadline"]


class Deadline:
    """A moment on the monotonic clock, or never."""

    __slots__ = ("at", "budget")

    def __init__(self, budget: float | None) -> None:
        """Starts now. Args: budget: seconds, or None for no deadline."""
        self.budget = budget
        self.at = None if budget is None else time.monotonic() + budget

    def remaining(self) -> float | None:
        """Seconds left, never below 0; None where there is no deadline."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def left(self) -> float | None:
        """As `remaining`, but above 0. Raises TimeoutError where nothing is left."""
        seconds = self.remaining()
        if seconds is not None and seconds <= 0:
            raise TimeoutError
        return seconds

    def __str__(self) -> str:
        return "no deadline" if self.budget is None else f"deadline of {self.budget:g} s"
