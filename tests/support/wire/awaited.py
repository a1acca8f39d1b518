"""Either client with the surface of the asynchronous one."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

from tritonsmith_client import (
    Model,
    Sequence,
)

Run = Callable[[Callable[[Any], Awaitable[Any]]], Any]


class Awaited:
    """The sync surface with an `await` before it, so that one test fits both clients."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return self._wrapped(found) if callable(found) else found

    async def __call__(self, *args: Any, **named: Any) -> Any:
        return self.inner(*args, **named)

    def _wrapped(self, function: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            value = function(*args, **named)
            if isinstance(value, (Model, Sequence)) and function.__name__ != "model":
                return Awaited(value)
            if inspect.isgenerator(value) or isinstance(value, Iterator):
                return _each(value)
            if hasattr(value, "result") and hasattr(value, "cancel"):
                return _Future(value)
            return _done(Awaited(value) if isinstance(value, Model) else value)

        return call

    async def __aenter__(self) -> Awaited:
        return Awaited(self.inner.__enter__())

    async def __aexit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)


class _Future:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def cancel(self) -> bool:
        return bool(self.inner.cancel())

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        return self.inner.result(timeout=20)


async def _done(value: Any) -> Any:
    return value


async def _each(values: Iterator[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value
