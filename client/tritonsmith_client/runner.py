"""Runs flows in threads: the synchronous half of what `asyncrunner` does for asyncio."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from .deadline import CancellableDeadline, Deadline
from .errors import ClosedError, RequestCancelledError, TritonError
from .exchange import Action, Exchange, Flow, Gather, Sleep, T

__all__ = ["Runner", "Transport"]


class Transport(Protocol):
    """All the I/O of a synchronous client."""

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T: ...
    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]: ...
    def close(self) -> None: ...


class Runner:
    """Does what flows ask for. Threads may share it.

    Args:
        workers: the largest number of calls that `submit` runs at a time.
    """

    def __init__(self, transport: Transport, workers: int) -> None:
        self.transport = transport
        self._calls = _Workers(workers)
        # Apart, so that calls which wait for their parts cannot use up what the parts need.
        self._parts = _Workers(workers)

    def run(self, flow: Flow[T], deadline: Deadline) -> T:
        """Does what a flow asks for until it returns."""
        send = self.transport.send
        try:
            action = next(flow)
            while True:
                try:
                    if type(action) is Exchange:
                        value = send(action, deadline)
                    else:
                        value = self._do(action, deadline)
                except TritonError as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    def submit(self, start: Callable[[Deadline], Flow[T]], budget: float | None) -> Future[T]:
        """Runs a flow in another thread; its time counts from now."""
        deadline = CancellableDeadline(budget)
        pending: _Pending[T] = _Pending(deadline)

        def work() -> None:
            if not pending.set_running_or_notify_cancel():
                return
            try:
                pending.set_result(self.run(start(deadline), deadline))
            except BaseException as error:
                pending.set_exception(error)

        self._calls.submit(work)
        return pending

    def close(self) -> None:
        self.transport.close()
        self._calls.close()
        self._parts.close()

    def _do(self, action: Action, deadline: Deadline) -> Any:
        if isinstance(action, Sleep):
            return _sleep(action.seconds, deadline)
        assert isinstance(action, Gather)
        return self._gather(action, deadline)

    def _gather(self, action: Gather, deadline: Deadline) -> list[Any]:
        futures = [self._parts.submit(self.run, flow, deadline) for flow in action.flows]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _sleep(seconds: float, deadline: Deadline) -> None:
    if not isinstance(deadline, CancellableDeadline):
        time.sleep(seconds)
        return
    rung = threading.Event()
    deadline.on_cancel(rung.set)
    if rung.wait(seconds):
        raise RequestCancelledError("the call was cancelled", status="CANCELLED")
    deadline.on_cancel(None)


class _Pending(Future[T]):
    """A future whose cancel() also ends a call that is under way."""

    def __init__(self, deadline: CancellableDeadline) -> None:
        super().__init__()
        self._deadline = deadline

    def cancel(self) -> bool:
        """Ends the call; a call that is under way ends with RequestCancelledError."""
        if super().cancel():
            return True
        if self.done():
            return False
        self._deadline.cancel()
        return True


class _Workers:
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
                raise ClosedError("the client was used after close(): make a new Client")
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
