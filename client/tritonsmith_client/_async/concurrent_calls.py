"""Several calls of a model at a time, as tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from tritonsmith_client._async.driver import AsyncDriver
from tritonsmith_client._core.arguments import CONCURRENCY, ITEMS, PROGRESS
from tritonsmith_client._core.client import ClientCore
from tritonsmith_client._core.model import ModelCore
from tritonsmith_client._exchange.exchange import Flow
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._values.result import Result

__all__ = ["AsyncConcurrentCalls"]


class AsyncConcurrentCalls:
    """The calls of `AsyncModel` that run side by side."""

    _client: ClientCore
    _driver: AsyncDriver
    _core: ModelCore
    _options: Options

    def submit(self, *args: Any, **named: Any) -> asyncio.Future[Result]:
        """Start the call at once; await the future, or ``cancel()`` it.

        Arrays are read while the call runs: leave them alone until it is done.
        """

        def start(deadline: Deadline) -> Flow[Result]:
            return self._core.infer(args, named, self._options, deadline)

        return self._driver.submit(start, self._client.budget(self._options.timeout))

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = 8,
        progress: Callable[[int], object] | None = None,
    ) -> AsyncIterator[Result]:
        """Run the model for each item, several at a time; results come in the items' order.

        Args:
            items: each an array, a tuple of arrays by position, or a mapping by name. Read only
                as far as results are taken.
            concurrency: calls at a time.
            progress: called with the number of results so far.
        """
        if not isinstance(items, AsyncIterable):
            ITEMS(items, model=self._core.name)
        concurrency = CONCURRENCY(concurrency, model=self._core.name)
        return self._map(_iterate(items), concurrency, PROGRESS(progress, model=self._core.name))

    async def _map(
        self,
        items: AsyncIterator[Any],
        concurrency: int,
        progress: Callable[[int], object] | None,
    ) -> AsyncIterator[Result]:
        waiting: deque[asyncio.Future[Result]] = deque()
        done = 0
        try:
            async for item in items:
                waiting.append(self.submit(*(item if isinstance(item, tuple) else (item,))))
                if len(waiting) < concurrency:
                    continue
                yield await waiting.popleft()
                done += 1
                if progress is not None:
                    progress(done)
            while waiting:
                yield await waiting.popleft()
                done += 1
                if progress is not None:
                    progress(done)
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def _iterate(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
