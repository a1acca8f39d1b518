"""Calls over a pool of connections that threads share; one call at a time over each of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._exchange.idle_connections import IdleConnections, may_send_again
from tritonsmith_client._exchange.status import from_grpc_status
from tritonsmith_client._exchange.transport import Reply, Request
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.connection_errors import closed, lost, no_connection
from tritonsmith_client._net.deadline import CancellableDeadline, Deadline
from tritonsmith_client._net.log import debug
from tritonsmith_client._sync.connection import Connection
from tritonsmith_client.errors import DeadlineExceededError

__all__ = ["PoolTransport"]


class PoolTransport(ABC, Generic[Request, Reply]):
    """Sends each call over an idle connection, or a new one. Threads may share it."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._idle: IdleConnections[Connection[Request, Reply]] = IdleConnections()

    @abstractmethod
    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        """Return what is sent."""

    @abstractmethod
    def _open(self, deadline: Deadline) -> Connection[Request, Reply]:
        """Return a new connection. Raises OSError."""

    @abstractmethod
    def _value(self, exchange: Exchange[T], reply: Reply) -> T:
        """Return what the reply means. Raises TritonError."""

    @abstractmethod
    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """Give the replies to one request; the timeout is for each of them. Raises TritonError."""

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send a request and read its reply within the deadline. Raises TritonError."""
        try:
            request = self._request(exchange, deadline)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        connection = self._take_idle()
        if connection is not None:
            reply = self._try(connection, request, exchange, deadline, reused=True)
            if reply is not None:
                return self._value(exchange, reply)
        connection = self._connect(self._open, exchange.what, deadline)
        reply = self._try(connection, request, exchange, deadline, reused=False)
        assert reply is not None
        return self._value(exchange, reply)

    def close(self) -> None:
        for connection in self._idle.close(os.getpid()):
            connection.close()

    def _try(
        self,
        connection: Connection[Request, Reply],
        request: Request,
        exchange: Exchange[T],
        deadline: Deadline,
        reused: bool,
    ) -> Reply | None:
        """One attempt; None where the request may go out again over a fresh connection."""
        cancellable = deadline if isinstance(deadline, CancellableDeadline) else None
        try:
            if cancellable is not None:
                cancellable.on_cancel(connection.abort)
            reply = connection.exchange(request, deadline)
        except TimeoutError as exc:
            connection.close()
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except OSError as exc:
            connection.close()
            if cancellable is not None and cancellable.cancelled:
                raise from_grpc_status(
                    "CANCELLED", "the call was cancelled", exchange.what
                ) from exc
            if reused and may_send_again(exchange, connection):
                return None
            raise lost(exchange.what, self._config.address, exc, connection.sent) from exc
        except BaseException:  # a malformed reply, or an interrupt: its rest would poison the next
            connection.close()
            raise
        if cancellable is not None:
            cancellable.on_cancel(None)
        if (cancellable is not None and cancellable.cancelled) or not self._idle.keep(connection):
            connection.close()
        return reply

    def _check_open(self) -> None:
        if self._idle.closed:
            raise closed("Client")

    def _take_idle(self) -> Connection[Request, Reply] | None:
        if self._idle.closed:
            self._check_open()
        owner = os.getpid()  # a forked child must not share its parent's connections
        while (connection := self._idle.take(owner)) is not None:
            if connection.usable():
                return connection
            connection.close()
        return None

    def _connect(self, opening: Callable[[Deadline], T], what: str, deadline: Deadline) -> T:
        """Return what that opens before the deadline. Raises TritonError."""
        try:
            opened = opening(deadline)
        except TimeoutError as exc:
            raise DeadlineExceededError(
                f"{what} failed: no connection to {self._config.address} within the {deadline}"
            ) from exc
        except OSError as exc:
            raise no_connection(what, self._config.address, exc) from exc
        debug("connected to %s", self._config.address)
        return opened
