"""Calls over a pool of connections that threads share; one call at a time over each of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Protocol

from tritonsmith_client._exchange.exchange import Exchange, Repeat, T
from tritonsmith_client._exchange.status import from_grpc_status
from tritonsmith_client._exchange.transport import IDLE_LIMIT, Received, Reply, Request, Sent
from tritonsmith_client._net.connection_config import Link
from tritonsmith_client._net.connection_errors import lost, no_connection
from tritonsmith_client._net.deadline import CancellableDeadline, Deadline
from tritonsmith_client._sync.sockets import DeadlineSocket
from tritonsmith_client.errors import (
    ClosedError,
    DeadlineExceededError,
)

__all__ = ["Connection", "PoolTransport"]


class Connection(Protocol[Sent, Received]):
    """A connection, used by one call at a time.

    Attributes:
        keep_alive: after a call, whether another one may follow.
        silent: nothing has come for this call yet.
    """

    socket: DeadlineSocket

    @property
    def keep_alive(self) -> bool: ...
    @property
    def silent(self) -> bool: ...
    def usable(self) -> bool: ...
    def send(self, request: Sent, deadline: Deadline) -> None: ...
    def receive(self, deadline: Deadline) -> Received: ...


class PoolTransport(ABC, Generic[Request, Reply]):
    """Sends each call over an idle connection, or a new one. Threads may share it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._idle: deque[Connection[Request, Reply]] = deque()  # append and pop are atomic
        self._pid = os.getpid()
        self._closed = False

    @abstractmethod
    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        """What is sent."""

    @abstractmethod
    def _open(self, deadline: Deadline) -> Connection[Request, Reply]:
        """A new connection. Raises OSError."""

    @abstractmethod
    def _value(self, exchange: Exchange[T], reply: Reply) -> T:
        """What the reply means. Raises TritonError."""

    @abstractmethod
    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """The replies to one request; the timeout is for each of them. Raises TritonError."""

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Sends a request and reads its reply within the deadline. Raises TritonError."""
        try:
            request = self._request(exchange, deadline)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        connection = self._take_idle()
        if connection is not None:
            reply = self._try(connection, request, exchange, deadline, reused=True)
            if reply is not None:
                return self._value(exchange, reply)
        connection = self._connect(exchange.what, deadline)
        reply = self._try(connection, request, exchange, deadline, reused=False)
        assert reply is not None
        return self._value(exchange, reply)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().socket.close()

    def _try(
        self,
        connection: Connection[Request, Reply],
        request: Request,
        exchange: Exchange[T],
        deadline: Deadline,
        reused: bool,
    ) -> Reply | None:
        """One attempt; None where a reused connection was stale and nothing was executed."""
        complete = False
        try:
            if isinstance(deadline, CancellableDeadline):
                deadline.on_cancel(connection.socket.abort)
            try:
                connection.send(request, deadline)
                complete = True
            except (BrokenPipeError, ConnectionResetError):
                pass  # a server may refuse a request before it has read it all: see what it says
            reply = connection.receive(deadline)
        except TimeoutError as exc:
            connection.socket.close()
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except OSError as exc:
            connection.socket.close()
            if isinstance(deadline, CancellableDeadline) and deadline.cancelled:
                raise from_grpc_status(
                    "CANCELLED", "the call was cancelled", exchange.what
                ) from exc
            harmless = not complete or exchange.repeat is Repeat.ALWAYS
            if reused and harmless and connection.silent:
                return None
            raise lost(exchange.what, self._link.address, exc, complete) from exc
        except BaseException:  # a malformed reply, or an interrupt: its rest would poison the next
            connection.socket.close()
            raise
        if isinstance(deadline, CancellableDeadline):
            deadline.on_cancel(None)
        if complete and connection.keep_alive and not self._closed and len(self._idle) < IDLE_LIMIT:
            self._idle.append(connection)
        else:
            connection.socket.close()
        return reply

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client was used after close(): make a new Client")

    def _take_idle(self) -> Connection[Request, Reply] | None:
        if self._closed:
            self._check_open()
        if self._pid != os.getpid():  # a forked child must not share its parent's connections
            self._idle = deque()
            self._pid = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.usable():
                return connection
            connection.socket.close()

    def _connect(self, what: str, deadline: Deadline) -> Connection[Request, Reply]:
        try:
            return self._open(deadline)
        except TimeoutError as exc:
            raise DeadlineExceededError(
                f"{what} failed: no connection to {self._link.address} within the {deadline}"
            ) from exc
        except OSError as exc:
            raise no_connection(what, self._link.address, exc) from exc
