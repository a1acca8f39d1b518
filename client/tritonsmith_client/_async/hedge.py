"""Two attempts at one request, for asyncio: the first good answer counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tritonsmith_client._exchange.exchange import Exchange, Hedge, HookError
from tritonsmith_client._net.deadline import Deadline

__all__ = ["async_race"]


async def async_race(
    send: Callable[[Exchange[Any], Deadline], Awaitable[Any]], hedge: Hedge, deadline: Deadline
) -> Any:
    """As `race`, with tasks instead of threads."""
    import asyncio  # a synchronous client does without

    def start() -> asyncio.Future[Any]:
        return asyncio.ensure_future(send(hedge.exchange, deadline))

    racing = [start()]
    try:
        done, _ = await asyncio.wait(racing, timeout=hedge.delay)
        if not done:
            racing.append(start())
        waiting = set(racing)
        failures: list[BaseException] = []
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    return task.result()
                if isinstance(error, HookError):
                    raise error
                failures.append(error)
        raise failures[0]
    finally:
        for task in racing:
            task.cancel()
        await asyncio.gather(*racing, return_exceptions=True)
