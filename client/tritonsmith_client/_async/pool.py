"""Calls over a pool of connections in an event loop: what `pooltransport` does in threads."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from tritonsmith_client._exchange.exchange import Exchange, Repeat
from tritonsmith_client._exchange.transport import IDLE_LIMIT, Received, Reply, Request, Sent
from tritonsmith_client._net.connection_config import Link
from tritonsmith_client._net.connection_errors import lost, no_connection
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client.errors import ClosedError, DeadlineExceededError

__all__ = ["AsyncConnection", "AsyncPoolTransport"]

T = TypeVar("T")


class AsyncConnection(Protocol[Sent, Received]):
    """A connection, used by one call at a time.

    Attributes:
        usable: another call may follow.
        silent: nothing has come for this call yet.
    """

    @property
    def usable(self) -> bool: ...
    @property
    def silent(self) -> bool: ...
    def abort(self) -> None: ...
    async def exchange(self, request: Sent, deadline: Deadline) -> Received: ...


class AsyncPoolTransport(ABC, Generic[Request, Reply]):
    """A pool of connections, for each event loop that it is used in, one after the other."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._address = link.address
        self._idle: deque[AsyncConnection[Request, Reply]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @abstractmethod
    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        """What is sent."""

    @abstractmethod
    async def _open(self) -> AsyncConnection[Request, Reply]:
        """A new connection. Raises OSError."""

    @abstractmethod
    def _value(self, exchange: Exchange[T], reply: Reply) -> T:
        """What the reply means. Raises TritonError."""

    @abstractmethod
    def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """The replies to one request; the timeout is for each of them. Raises TritonError."""

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Sends a request and reads its reply within the deadline. Raises TritonError."""
        try:
            request = self._request(exchange, deadline)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        connection = self._take_idle()
        if connection is not None:
            reply = await self._try(connection, request, exchange, deadline, reused=True)
            if reply is not None:
                return self._value(exchange, reply)
        connection = await self._connect(exchange.what, deadline)
        reply = await self._try(connection, request, exchange, deadline, reused=False)
        assert reply is not None
        return self._value(exchange, reply)

    async def close(self) -> None:
        self._closed = True
        if self._loop is asyncio.get_running_loop():  # those of an ended loop cannot be closed
            while self._idle:
                self._idle.pop().abort()
            await asyncio.sleep(0)  # lets the event loop take note
        self._idle.clear()

    async def _try(
        self,
        connection: AsyncConnection[Request, Reply],
        request: Request,
        exchange: Exchange[T],
        deadline: Deadline,
        reused: bool,
    ) -> Reply | None:
        """One attempt; None where a reused connection was stale and nothing was executed."""
        try:
            reply = await connection.exchange(request, deadline)
        except TimeoutError as exc:
            connection.abort()
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except OSError as exc:
            connection.abort()
            if reused and exchange.repeat is Repeat.ALWAYS and connection.silent:
                return None
            raise lost(exchange.what, self._address, exc, complete=True) from exc
        except BaseException:  # a malformed reply, or cancelled: its rest would poison the next
            connection.abort()
            raise
        if connection.usable:
            self._give_back(connection)
        else:
            connection.abort()
        return reply

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client was used after close(): make a new AsyncClient")

    def _take_idle(self) -> AsyncConnection[Request, Reply] | None:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._idle = loop, deque()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    def _give_back(self, connection: AsyncConnection[Request, Reply]) -> None:
        if self._closed or len(self._idle) >= IDLE_LIMIT:
            connection.abort()
        else:
            self._idle.append(connection)

    async def _connect(self, what: str, deadline: Deadline) -> AsyncConnection[Request, Reply]:
        return await self._within(self._open, what, deadline)

    async def _within(
        self, opening: Callable[[], Coroutine[Any, Any, T]], what: str, deadline: Deadline
    ) -> T:
        """A connection, opened before the deadline. Raises TritonError."""
        try:
            left = deadline.left()  # before there is a coroutine that nobody would await
            return await asyncio.wait_for(opening(), left)
        except (TimeoutError, asyncio.TimeoutError) as exc:
            raise DeadlineExceededError(
                f"{what} failed: no connection to {self._address} within the {deadline}"
            ) from exc
        except OSError as exc:
            raise no_connection(what, self._address, exc) from exc
