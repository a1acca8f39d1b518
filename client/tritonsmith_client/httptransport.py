"""HTTP/1.1 over plain sockets, with a pool of connections that threads share."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

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
_PIECE = 1 << 20
IDLE_LIMIT = 256
_MAX_BUFFERS = 512  # sendmsg takes 1024 on Linux


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
    headers = header_lines(link.call_headers(exchange.headers))
    return [b"".join((route, fixed, headers, b"\r\n")), *body]


class _Connection:
    """One socket and the reader of its responses; used by one call at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.reader = HttpResponseReader()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def usable(self) -> bool:
        """Whether the server has neither closed it nor sent what nobody asked for."""
        return not self._poll.poll(0)

    def send(self, buffers: list[Buffer], deadline: Deadline) -> None:
        sock = self.socket
        if isinstance(sock, ssl.SSLSocket):
            for buffer in buffers:
                _send_all(sock, memoryview(buffer), deadline)
            return
        sock.settimeout(deadline.left())
        sent = sock.sendmsg(buffers[:_MAX_BUFFERS])
        for buffer in buffers:
            view = memoryview(buffer)
            if sent >= view.nbytes:
                sent -= view.nbytes
            else:
                _send_all(sock, view[sent:], deadline)
                sent = 0

    def receive(self, deadline: Deadline) -> HttpReply:
        reader, sock = self.reader, self.socket
        reader.start(True)
        while True:
            sock.settimeout(deadline.left())
            count = sock.recv_into(reader.buffer())
            if not count:
                if reader.ended():
                    return reader.reply()
                raise ConnectionResetError("the server closed the connection")
            if reader.received(count):
                return reader.reply()

    def abort(self) -> None:
        """Ends a send or receive in another thread."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


def _send_all(sock: socket.socket, data: memoryview, deadline: Deadline) -> None:
    """sendall whose timeout is the whole budget rather than one per packet, TLS included."""
    while data:
        sock.settimeout(deadline.left())
        data = data[sock.send(data[:_PIECE]) :]


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
            self._idle.pop().close()

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
                deadline.on_cancel(connection.abort)
            try:
                connection.send(buffers, deadline)
                complete = True
            except (BrokenPipeError, ConnectionResetError):
                pass  # a server may refuse a request before it has read it all: see what it says
            reply = connection.receive(deadline)
        except TimeoutError as exc:
            connection.close()
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except OSError as exc:
            connection.close()
            if isinstance(deadline, CancellableDeadline) and deadline.cancelled:
                raise from_grpc_status("CANCELLED", "it was cancelled", exchange.what) from exc
            harmless = not complete or exchange.repeat is Repeat.ALWAYS
            if reused and harmless and connection.reader.silent:
                return None
            raise lost(exchange.what, self._address, exc, complete) from exc
        except BaseException:  # a malformed reply, or an interrupt: its rest would poison the next
            connection.close()
            raise
        if isinstance(deadline, CancellableDeadline):
            deadline.on_cancel(None)
        if complete and connection.reader.keep_alive:
            self._give_back(connection)
        else:
            connection.close()
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
            if connection.usable():
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        if self._closed or len(self._idle) >= IDLE_LIMIT:
            connection.close()
        else:
            self._idle.append(connection)

    def _connect(self, what: str, deadline: Deadline) -> _Connection:
        try:
            sock = _open(self._address, deadline)
            try:
                sock.settimeout(deadline.left())
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_hostname=server_name(self._link))
            except BaseException:
                sock.close()
                raise
        except TimeoutError as exc:
            raise DeadlineExceededError(
                f"{what} failed: no connection to {self._address} within the {deadline}"
            ) from exc
        except OSError as exc:
            raise no_connection(what, self._address, exc) from exc
        return _Connection(sock)


def _open(address: Address, deadline: Deadline) -> socket.socket:
    """A connected socket, from the first of the host's addresses that answers."""
    kinds: list[tuple[Any, Any, int, str, Any]]
    if address.unix:
        kinds = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address.path)]
    else:
        kinds = [*socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)]
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in kinds:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left())
            sock.connect(place)
            if not address.unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
    raise failure


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
