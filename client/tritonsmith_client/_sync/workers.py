"""Calls in threads: futures that can be cancelled, and the pools that run them.

Apart from `_sync.driver`, as concurrent.futures takes its time to import and few programs need it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tritonsmith_client._exchange.exchange import T
from tritonsmith_client._net.connection_errors import closed
from tritonsmith_client._net.deadline import CancellableDeadline

__all__ = ["Pending", "Workers"]


class Pending(Future[T]):
    """A future whose cancel() also ends a call that is under way."""

    def __init__(self, deadline: CancellableDeadline) -> None:
        super().__init__()
        self._deadline = deadline

    def cancel(self) -> bool:
        """End the call; a call that is under way ends with RequestCancelledError."""
        if super().cancel():
            return True
        if self.done():
            return False
        self._deadline.cancel()
        return True


class Workers:
    """A pool of threads that is made on first use, and again in a forked child."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0
        self._closed = False

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise closed("Client")
            if self._pool is None or self._pid != os.getpid():
                self._pool = ThreadPoolExecutor(self._size, "tritonsmith")
                self._pid = os.getpid()
            return self._pool.submit(function, *args)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.shutdown(wait=False, cancel_futures=True)
