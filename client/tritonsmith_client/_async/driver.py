"""Runs flows in an event loop: what `_sync.driver` does in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from tritonsmith_client._exchange.exchange import (
    Action,
    Asked,
    Exchange,
    Flow,
    Hedge,
    HookError,
    Sleep,
    T,
)
from tritonsmith_client._exchange.transport import AsyncTransport
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client.errors import TritonError

__all__ = ["AsyncDriver"]


class AsyncDriver:
    """Does what flows ask for. Tasks of one event loop may share it.

    Args:
        workers: of `Driver`; tasks need no threads.
    """

    def __init__(self, transport: AsyncTransport, workers: int) -> None:
        self.transport = transport

    async def run(self, flow: Flow[T], deadline: Deadline) -> T:
        """Do what a flow asks for until it returns."""
        try:
            return await self._run(flow, deadline)
        except HookError as failure:
            raise failure.error from failure.error.__cause__

    async def _run(self, flow: Flow[T], deadline: Deadline) -> T:
        try:
            action = next(flow)
            while True:
                try:
                    value = await self._do(action, deadline)
                except BaseException as error:  # an interrupt too: the flow cleans up
                    action = flow.throw(error)
                else:
                    action = flow.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    async def stream(
        self,
        start: Callable[[Deadline], Flow[Exchange[T | None]]],
        recover: Callable[[Asked, TritonError, bool, Deadline], Flow[Exchange[T | None]]],
        timeout: float | None,
    ) -> AsyncIterator[T]:
        """Yield the replies to one request that have a content; see `Driver.stream`."""
        deadline = Deadline(timeout)
        exchange = await self.run(start(deadline), deadline)
        final = False
        while True:
            parts = self.transport.stream(exchange, timeout)
            try:
                async for part in parts:
                    final = True
                    if part is not None:
                        yield part
                return
            except TritonError as error:
                deadline = Deadline(timeout)
                exchange = await self.run(recover(exchange.what, error, final, deadline), deadline)
                final = True
            except HookError as failure:
                raise failure.error from failure.error.__cause__
            finally:
                await parts.aclose()  # type: ignore[attr-defined]  # an async generator

    def submit(
        self, start: Callable[[Deadline], Flow[T]], budget: float | None
    ) -> asyncio.Future[T]:
        """Run a flow in a task; its time counts from now."""
        deadline = Deadline(budget)
        return asyncio.ensure_future(self.run(start(deadline), deadline))

    async def close(self) -> None:
        await self.transport.close()

    async def _do(self, action: Action, deadline: Deadline) -> Any:
        if isinstance(action, Exchange):
            return await self.transport.send(action, deadline)
        if isinstance(action, Sleep):
            return await asyncio.sleep(action.seconds)
        if isinstance(action, Hedge):
            from tritonsmith_client._async.hedge import async_race

            return await async_race(self.transport.send, action, deadline)
        tasks = [asyncio.ensure_future(self._run(flow, deadline)) for flow in action.flows]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
