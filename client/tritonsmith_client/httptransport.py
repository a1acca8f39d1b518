"""HTTP/1.1 over plain sockets, with a pool of connections that threads share."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

from .address import Address
from .deadline import CancellableDeadline, Deadline
from .errors import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    TritonError,
    UnsupportedError,
    from_grpc_status,
)
from .exchange import Exchange, Headers, Repeat
from .httpreader import HttpResponseReader
from .httpwire import HttpReply, compressed
from .link import Link
from .sockets import DeadlineSocket, connect
from .tensors import Buffer

__all__ = [
    "IDLE_LIMIT",
    "HttpTransport",
    "fixed_headers",
    "lost",
    "no_connection",
    "no_streams",
    "server_name",
    "wire_request",
]

T = TypeVar("T")
IDLE_LIMIT = 256


def header_lines(headers: Headers) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def fixed_headers(link: Link) -> bytes:
    """What every request carries. Triton compresses, slowly, unless it is told not to."""
    host = "localhost" if link.address.unix else link.address.target
    names = {name for name, _ in link.headers}
    own = (("host", host), ("accept-encoding", link.compression or "identity"))
    return header_lines((*(h for h in own if h[0] not in names), *link.headers))


def wire_request(exchange: Exchange[T], link: Link, fixed: bytes) -> list[Buffer]:
    """Everything that is sent for a request; the first buffer holds all headers."""
    assert isinstance(exchange.route, bytes)
    route, body = exchange.route, exchange.body
    if link.compression is not None:
        route, body = compressed(exchange, link.compression)
    headers = b""
    if exchange.headers or link.hook is not None:
        headers = header_lines(link.call_headers(exchange.headers))
    return [b"".join((route, fixed, headers, b"\r\n")), *body]


class _Connection:
    """One socket and the reader of its responses; used by one call at a time."""

    def __init__(self, sock: DeadlineSocket) -> None:
        self.socket = sock
        self.reader = HttpResponseReader()

    def receive(self, deadline: Deadline) -> HttpReply:
        reader, receive = self.reader, self.socket.receive
        reader.start(True)
        while True:
            count = receive(reader.buffer(), deadline)
            if not count:
                if reader.ended():
                    return reader.reply()
                raise ConnectionResetError("the server closed the connection")
            if reader.received(count):
                return reader.reply()


class HttpTransport:
    """Sends each call over an idle connection, or a new one. Threads may share it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._address = link.address
        self._fixed = fixed_headers(link)
        self._tls = None if link.tls is None else link.tls.context()
        self._idle: deque[_Connection] = deque()  # its append and pop are atomic
        self._pid = os.getpid()
        self._closed = False

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Sends a request and reads its reply within the deadline. Raises TritonError."""
        buffers = wire_request(exchange, self._link, self._fixed)
        connection = self._take_idle()
        if connection is not None:
            reply = self._try(connection, buffers, exchange, deadline, reused=True)
            if reply is not None:
                return exchange.parse(reply)
        connection = self._connect(exchange.what, deadline)
        reply = self._try(connection, buffers, exchange, deadline, reused=False)
        assert reply is not None
        return exchange.parse(reply)

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """Raises UnsupportedError."""
        raise no_streams(exchange.what)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().socket.close()

    def _try(
        self,
        connection: _Connection,
        buffers: list[Buffer],
        exchange: Exchange[T],
        deadline: Deadline,
        reused: bool,
    ) -> HttpReply | None:
        """One attempt; None where a reused connection was stale and nothing was executed."""
        complete = False
        try:
            if isinstance(deadline, CancellableDeadline):
                deadline.on_cancel(connection.socket.abort)
            try:
                connection.socket.send(buffers, deadline)
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
                raise from_grpc_status("CANCELLED", "it was cancelled", exchange.what) from exc
            harmless = not complete or exchange.repeat is Repeat.ALWAYS
            if reused and harmless and connection.reader.silent:
                return None
            raise lost(exchange.what, self._address, exc, complete) from exc
        except BaseException:  # a malformed reply, or an interrupt: its rest would poison the next
            connection.socket.close()
            raise
        if isinstance(deadline, CancellableDeadline):
            deadline.on_cancel(None)
        if complete and connection.reader.keep_alive:
            self._give_back(connection)
        else:
            connection.socket.close()
        return reply

    def _take_idle(self) -> _Connection | None:
        if self._closed:
            raise ClosedError("the client was used after close(): make a new Client")
        if self._pid != os.getpid():  # a forked child must not share its parent's connections
            self._idle = deque()
            self._pid = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.socket.quiet():
                return connection
            connection.socket.close()

    def _give_back(self, connection: _Connection) -> None:
        if self._closed or len(self._idle) >= IDLE_LIMIT:
            connection.socket.close()
        else:
            self._idle.append(connection)

    def _connect(self, what: str, deadline: Deadline) -> _Connection:
        try:
            return _Connection(connect(self._address, self._tls, server_name(self._link), deadline))
        except TimeoutError as exc:
            raise DeadlineExceededError(
                f"{what} failed: no connection to {self._address} within the {deadline}"
            ) from exc
        except OSError as exc:
            raise no_connection(what, self._address, exc) from exc


def no_connection(what: str, address: Address, exc: OSError) -> TritonError:
    return ConnectError(
        f"{what} failed: no connection to {address}: {exc}; "
        "check the address, or wait with client.wait_ready()"
    )


def server_name(link: Link) -> str | None:
    """The name that the server's certificate must have; None without TLS."""
    return (
        None if link.tls is None else link.tls.server_name or link.address.name or link.address.host
    )


def no_streams(what: str) -> TritonError:
    return UnsupportedError(
        f"{what} failed: tensors are streamed over gRPC only; use a grpc:// address"
    )


def lost(what: str, address: Address, exc: OSError, complete: bool) -> TritonError:
    if not complete:
        return ConnectError(f"{what} failed: the connection to {address} broke: {exc}")
    return ConnectionLostError(
        f"{what} failed: the connection to {address} broke before the reply was complete: {exc}; "
        "the server may have executed it"
    )
