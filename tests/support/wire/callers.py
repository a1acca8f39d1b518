"""Calls through the synchronous or the asynchronous client, said once for both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tritonsmith_client import AsyncClient, Client, Result

__all__ = ["CALLERS", "WAYS", "Call", "Caller", "caller", "calling"]

CALLERS = ("sync", "async")
WAYS = [(kind, way) for kind in CALLERS for way in ("grpc", "own", "http")]  # "own": our HTTP/2

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


class Caller:
    """A client, synchronous or not, whose methods are called alike."""

    def __init__(self, kind: str, url: str | Sequence[str], **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._client: Any = (Client if kind == "sync" else AsyncClient)(url, **options)
        except BaseException:
            self._loop.close()
            raise

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: self.do(getattr(self._client, name), *args, **named)

    def do(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """The result of a method of the client, or of one of its models."""
        made = function(*args, **named)
        return self._loop.run_until_complete(made) if inspect.isawaitable(made) else made

    def each(self, parts: Any) -> Generator[Any, None, None]:
        """What a stream gives; closing this closes the stream."""
        step = parts.__next__ if hasattr(parts, "__next__") else parts.__anext__
        try:
            while True:
                try:
                    part = self.do(step)
                except (StopIteration, StopAsyncIteration):
                    return
                yield part
        finally:
            self.do(parts.close if hasattr(parts, "close") else parts.aclose)

    def close(self) -> None:
        self.do(self._client.close)
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def caller(kind: str, way: str, address: str, **options: Any) -> Caller:
    scheme = "http" if way == "http" else "grpc"
    http2 = {"http2": "own"} if way == "own" else {}
    return Caller(kind, f"{scheme}://{address.rpartition('/')[2]}", **http2, **options)
