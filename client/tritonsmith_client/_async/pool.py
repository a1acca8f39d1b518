"""Calls over a pool of connections in an event loop: what `_sync.pool` does in threads."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic

from tritonsmith_client._async.connection import AsyncConnection
from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._exchange.idle_connections import IdleConnections, may_send_again
from tritonsmith_client._exchange.transport import Reply, Request
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.connection_errors import closed, lost, no_connection
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.log import debug
from tritonsmith_client.errors import DeadlineExceededError

__all__ = ["AsyncPoolTransport"]


class AsyncPoolTransport(ABC, Generic[Request, Reply]):
    """A pool of connections, for each event loop that it is used in, one after the other."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._idle: IdleConnections[AsyncConnection[Request, Reply]] = IdleConnections()

    @abstractmethod
    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        """Return what is sent."""

    @abstractmethod
    async def _open(self) -> AsyncConnection[Request, Reply]:
        """Return a new connection. Raises OSError."""

    @abstractmethod
    def _value(self, exchange: Exchange[T], reply: Reply) -> T:
        """Return what the reply means. Raises TritonError."""

    @abstractmethod
    def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """Give the replies to one request; the timeout is for each of them. Raises TritonError."""

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send a request and read its reply within the deadline. Raises TritonError."""
        try:
            request = self._request(exchange, deadline)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        connection = await self._take_idle()
        if connection is not None:
            reply = await self._try(connection, request, exchange, deadline, reused=True)
            if reply is not None:
                return self._value(exchange, reply)
        connection = await self._connect(self._open, exchange.what, deadline)
        reply = await self._try(connection, request, exchange, deadline, reused=False)
        assert reply is not None
        return self._value(exchange, reply)

    async def close(self) -> None:
        left = self._idle.close(_owner())
        for connection in left:
            connection.close()
        if left:
            await asyncio.sleep(0)  # lets the event loop take note

    async def _try(
        self,
        connection: AsyncConnection[Request, Reply],
        request: Request,
        exchange: Exchange[T],
        deadline: Deadline,
        reused: bool,
    ) -> Reply | None:
        """One attempt; None where the request may go out again over a fresh connection."""
        try:
            reply = await connection.exchange(request, deadline)
        except TimeoutError as exc:
            connection.close()
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except OSError as exc:
            connection.close()
            if reused and may_send_again(exchange, connection):
                return None
            raise lost(exchange.what, self._config.address, exc, connection.sent) from exc
        except BaseException:  # a malformed reply, or cancelled: its rest would poison the next
            connection.close()
            raise
        if not self._idle.keep(connection):
            connection.close()
        return reply

    def _check_open(self) -> None:
        if self._idle.closed:
            raise closed("AsyncClient")

    async def _take_idle(self) -> AsyncConnection[Request, Reply] | None:
        self._check_open()
        owner = _owner()
        while (connection := self._idle.take(owner)) is not None:
            try:
                if await connection.usable():
                    return connection
            except BaseException:  # cancelled, while nobody else knows of it
                connection.close()
                raise
            connection.close()
        return None

    async def _connect(
        self, opening: Callable[[], Coroutine[Any, Any, T]], what: str, deadline: Deadline
    ) -> T:
        """Return what that opens before the deadline. Raises TritonError."""
        try:
            left = deadline.left()  # before there is a coroutine that nobody would await
            opened = await asyncio.wait_for(opening(), left)
        except (TimeoutError, asyncio.TimeoutError) as exc:
            raise DeadlineExceededError(
                f"{what} failed: no connection to {self._config.address} within the {deadline}"
            ) from exc
        except OSError as exc:
            raise no_connection(what, self._config.address, exc) from exc
        debug("connected to %s", self._config.address)
        return opened


def _owner() -> object:
    """Who may use the connections: an event loop, and not that of a forked child."""
    return asyncio.get_running_loop(), os.getpid()
