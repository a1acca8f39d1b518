"""One call through the synchronous or the asynchronous client, said once for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tritonsmith_client import AsyncClient, Client, Result

__all__ = ["CALLERS", "Call", "calling"]

CALLERS = ("sync", "async")

# call(model, array, timeout) -> result
Call = Callable[[str, Any, float], Result]


@contextmanager
def calling(kind: str, url: str, **options: Any) -> Iterator[Call]:
    """Calls of one client: each reads the model's signature and runs it, within the timeout."""
    if kind == "sync":
        with Client(url, **options) as client:
            yield lambda name, x, timeout: client.model(name).using(timeout=timeout)(x)
        return
    loop = asyncio.new_event_loop()
    aclient = AsyncClient(url, **options)

    async def call(name: str, x: Any, timeout: float) -> Result:
        model = await aclient.model(name)
        return await model.using(timeout=timeout)(x)

    try:
        yield lambda name, x, timeout: loop.run_until_complete(call(name, x, timeout))
    finally:
        loop.run_until_complete(aclient.close())
        loop.run_until_complete(asyncio.sleep(0))  # what was closed is told so in the next round
        loop.close()
