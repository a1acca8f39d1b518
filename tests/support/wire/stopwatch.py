"""How long something took on a machine that does much else at the same time."""

from __future__ import annotations

import threading
import time

__all__ = ["Stopwatch"]

_LOOK = 0.01  # seconds between two looks at the clock
_USUAL = 0.03  # seconds after which the next look comes at the latest while the process runs


class Stopwatch:
    """Counts the seconds since it was made, less those in which this process did not run.

    So a bound may be near what it is about, and no stall of the machine breaks it.
    """

    def __init__(self) -> None:
        self._stalled = 0.0
        self._read = threading.Event()
        self._start = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="stopwatch", daemon=True)
        self._thread.start()

    def seconds(self) -> float:
        """Those until now; it can be read once."""
        elapsed = time.monotonic() - self._start
        self._read.set()
        self._thread.join()
        return elapsed - self._stalled

    def _watch(self) -> None:
        last = self._start
        while True:
            read = self._read.wait(_LOOK)
            now = time.monotonic()
            self._stalled += max(0.0, now - last - _USUAL)
            last = now
            if read:
                return
