"""Runs flows in threads: the synchronous half of what `_async.driver` does for asyncio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tritonsmith_client._exchange.exchange import (
    Action,
    Asked,
    Exchange,
    Flow,
    Gather,
    Hedge,
    HookError,
    Sleep,
    T,
)
from tritonsmith_client._exchange.transport import Transport
from tritonsmith_client._net.connection_errors import closed
from tritonsmith_client._net.deadline import CancellableDeadline, Deadline
from tritonsmith_client.errors import RequestCancelledError, TritonError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tritonsmith_client._sync.workers import Workers

__all__ = ["Driver"]


class Driver:
    """Does what flows ask for. Threads may share it.

    Args:
        workers: the largest number of calls that `submit` runs at a time.
    """

    def __init__(self, transport: Transport, workers: int) -> None:
        self.transport = transport
        self._workers = workers
        self._lock = threading.Lock()
        self._pools: dict[str, Workers] = {}
        self._closed = False

    def run(self, flow: Flow[T], deadline: Deadline) -> T:
        """Do what a flow asks for until it returns."""
        try:
            return self._run(flow, deadline)
        except HookError as failure:
            raise failure.error from failure.error.__cause__

    def _run(self, flow: Flow[T], deadline: Deadline) -> T:
        send = self.transport.send
        try:
            action = next(flow)
            while True:
                try:
                    if isinstance(action, Exchange):
                        value = send(action, deadline)
                    else:
                        value = self._do(action, deadline)
                except BaseException as error:  # an interrupt too: the flow cleans up
                    action = flow.throw(error)
                else:
                    action = flow.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    def stream(
        self,
        start: Callable[[Deadline], Flow[Exchange[T | None]]],
        recover: Callable[[Asked, TritonError, bool, Deadline], Flow[Exchange[T | None]]],
        timeout: float | None,
    ) -> Iterator[T]:
        """Return the replies to one request that have a content.

        Args:
            start: gives what to ask; at once, so that a wrong argument is not found out later.
            recover: gives what to ask instead after a failure, which may be final, or raises.
            timeout: for each reply.
        """
        deadline = Deadline(timeout)
        return self._replies(self.run(start(deadline), deadline), recover, timeout)

    def _replies(
        self,
        exchange: Exchange[T | None],
        recover: Callable[[Asked, TritonError, bool, Deadline], Flow[Exchange[T | None]]],
        timeout: float | None,
    ) -> Iterator[T]:
        final = False
        while True:
            try:
                for part in self.transport.stream(exchange, timeout):
                    final = True
                    if part is not None:
                        yield part
                return
            except TritonError as error:
                deadline = Deadline(timeout)
                exchange = self.run(recover(exchange.what, error, final, deadline), deadline)
                final = True
            except HookError as failure:
                raise failure.error from failure.error.__cause__

    def submit(self, start: Callable[[Deadline], Flow[T]], budget: float | None) -> Future[T]:
        """Run a flow in another thread; its time counts from now."""
        deadline = CancellableDeadline(budget)
        from tritonsmith_client._sync.workers import Pending

        pending: Pending[T] = Pending(deadline)

        def work() -> None:
            if not pending.set_running_or_notify_cancel():
                return
            try:
                pending.set_result(self.run(start(deadline), deadline))
            except BaseException as error:
                pending.set_exception(error)

        self._pool("calls").submit(work)
        return pending

    def close(self) -> None:
        self.transport.close()
        with self._lock:
            self._closed = True
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _pool(self, name: str, size: int = 0) -> Workers:
        from tritonsmith_client._sync.workers import Workers

        with self._lock:
            if self._closed:
                raise closed("Client")
            return self._pools.setdefault(name, Workers(size or self._workers))

    def _do(self, action: Action, deadline: Deadline) -> Any:
        if isinstance(action, Sleep):
            return _sleep(action.seconds, deadline)
        if isinstance(action, Hedge):
            from tritonsmith_client._sync.hedge import race

            # Each caller may have two attempts under way, and none should wait for a thread.
            submit = self._pool("hedges", 8 * self._workers).submit
            return race(self.transport.send, submit, action, deadline)
        assert isinstance(action, Gather)
        return self._gather(action, deadline)

    def _gather(self, action: Gather, deadline: Deadline) -> list[Any]:
        # A pool of their own, so that calls which wait for their parts cannot use it up.
        pool = self._pool("parts")
        futures = [pool.submit(self._run, flow, deadline) for flow in action.flows]
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
