"""What a transport is: all the I/O of a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol, TypeVar

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._net.deadline import Deadline

__all__ = ["AsyncTransport", "Received", "Reply", "Request", "Sent", "Transport"]

# What a pool of connections sends and receives.
Request = TypeVar("Request")
Reply = TypeVar("Reply")
Sent = TypeVar("Sent", contravariant=True)
Received = TypeVar("Received", covariant=True)


class Transport(Protocol):
    """All the I/O of a synchronous client."""

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T: ...
    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]: ...
    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """All the I/O of an asynchronous client."""

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T: ...
    def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]: ...
    async def close(self) -> None: ...
