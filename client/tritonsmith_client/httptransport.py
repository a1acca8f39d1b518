"""HTTP/1.1 over plain sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from .deadline import Deadline
from .exchange import Exchange, Headers
from .httpevents import events
from .httpreader import HttpResponseReader
from .httpwire import HttpReply, compressed
from .link import Link
from .pooltransport import PoolTransport, server_name
from .sockets import DeadlineSocket, connect
from .tensors import Buffer

__all__ = ["HttpTransport", "fixed_headers", "wire_request"]

T = TypeVar("T")


def header_lines(headers: Headers) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def fixed_headers(link: Link) -> bytes:
    """What every request carries. Triton compresses, slowly, unless it is told not to."""
    own = [("host", link.authority), ("accept-encoding", link.compression or "identity")]
    if link.user_agent:
        own.append(("user-agent", link.user_agent))
    return header_lines((*own, *link.headers))


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
    """One socket and the reader of its responses."""

    def __init__(self, sock: DeadlineSocket) -> None:
        self.socket = sock
        self._reader = HttpResponseReader()

    @property
    def keep_alive(self) -> bool:
        return self._reader.keep_alive

    @property
    def silent(self) -> bool:
        return self._reader.silent

    def usable(self) -> bool:
        """Whether the server has neither closed it nor sent what nobody asked for."""
        return self.socket.quiet()

    def send(self, request: list[Buffer], deadline: Deadline) -> None:
        self._reader.start(True)
        self.socket.send(request, deadline)

    def receive(self, deadline: Deadline) -> HttpReply:
        reader, receive = self._reader, self.socket.receive
        while True:
            count = receive(reader.buffer(), deadline)
            if not count:
                if reader.ended():
                    return reader.reply()
                raise ConnectionResetError("the server closed the connection")
            if reader.received(count):
                return reader.reply()


class HttpTransport(PoolTransport[list[Buffer], HttpReply]):
    """Each call has a connection to itself. Threads may share it."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._fixed = fixed_headers(link)
        self._tls = None if link.tls is None else link.tls.context()

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """The events of a reply; the timeout is for each of them. Raises TritonError."""
        self._check_open()
        deadline = Deadline(timeout)
        connection = self._connect(exchange.what, deadline).socket
        request = self._request(exchange, deadline)
        yield from events(connection, request, exchange, timeout, self._link.address)

    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> list[Buffer]:
        return wire_request(exchange, self._link, self._fixed)

    def _open(self, deadline: Deadline) -> _Connection:
        link = self._link
        tls, name = self._tls, server_name(link)
        sock = connect(link.address, tls, name, deadline, keepalive=link.keepalive)
        return _Connection(sock)

    def _value(self, exchange: Exchange[T], reply: HttpReply) -> T:
        return exchange.parse(reply)
