"""Several calls of a model at a time, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tritonsmith_client._core.arguments import CONCURRENCY, ITEMS, PROGRESS
from tritonsmith_client._core.client import ClientCore
from tritonsmith_client._core.model import ModelCore
from tritonsmith_client._exchange.exchange import Flow
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._sync.driver import Driver
from tritonsmith_client._values.result import Result

if TYPE_CHECKING:
    from concurrent.futures import Future


__all__ = ["ConcurrentCalls"]


class ConcurrentCalls:
    """The calls of `Model` that run side by side."""

    _client: ClientCore
    _driver: Driver
    _core: ModelCore
    _options: Options

    def submit(self, *args: Any, **named: Any) -> Future[Result]:
        """Run the model in another thread; the future's ``cancel()`` ends the call.

        Arrays are read while the call runs: leave them alone until it is done.
        """

        def start(deadline: Deadline) -> Flow[Result]:
            return self._core.infer(args, named, self._options, deadline)

        return self._driver.submit(start, self._client.budget(self._options.timeout))

    def map(
        self,
        items: Iterable[Any],
        *,
        concurrency: int = 8,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Result]:
        """Run the model for each item, several at a time; results come in the items' order.

        Args:
            items: each an array, a tuple of arrays by position, or a mapping by name. Read only
                as far as results are taken.
            concurrency: calls at a time; no more than the client's workers.
            progress: called with the number of results so far.
        """
        return self._map(
            iter(ITEMS(items, model=self._core.name)),
            CONCURRENCY(concurrency, model=self._core.name),
            PROGRESS(progress, model=self._core.name),
        )

    def _map(
        self, items: Iterator[Any], concurrency: int, progress: Callable[[int], object] | None
    ) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        done = 0
        try:
            for item in items:
                waiting.append(self.submit(*(item if isinstance(item, tuple) else (item,))))
                if len(waiting) < concurrency:
                    continue
                yield waiting.popleft().result()
                done += 1
                if progress is not None:
                    progress(done)
            while waiting:
                yield waiting.popleft().result()
                done += 1
                if progress is not None:
                    progress(done)
        finally:
            for future in waiting:
                future.cancel()
