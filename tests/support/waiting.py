"""What becomes true a little later than the answer: the server counts after it has answered."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["soon"]


def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it is true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
