"""gRPC over plain sockets, in HTTP/2 of our own; streams go through grpcio."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._http2.connection import Http2Connection, Http2Reply, Request
from tritonsmith_client._http2.grpc_framing import Head, message_of, wire_message
from tritonsmith_client._net.connection_config import ConnectionConfig, server_name
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._sync.connection import CLOSED, Connection
from tritonsmith_client._sync.pool import PoolTransport
from tritonsmith_client._sync.sockets import DeadlineSocket, connect
from tritonsmith_client.errors import ResponseError

if TYPE_CHECKING:
    from tritonsmith_client._sync.grpc import GrpcTransport

__all__ = ["Http2Transport"]

_AT_ONCE = 0.001  # seconds


class _Connection(Connection[Request, Http2Reply]):
    """One socket and the HTTP/2 that goes over it."""

    def __init__(self, sock: DeadlineSocket, deadline: Deadline) -> None:
        """Wait for the server's settings. Raises OSError, ResponseError."""
        super().__init__(sock)
        self._http2 = Http2Connection()
        sock.send(self._http2.take(), deadline)
        while not self._http2.ready:
            self._read(deadline)

    @property
    def keep_alive(self) -> bool:
        return self._http2.keep_alive

    @property
    def silent(self) -> bool:
        return self._http2.silent

    def usable(self) -> bool:
        """Read what the server has said since the last call, without waiting."""
        try:
            while not self._socket.quiet():
                self._read(Deadline(_AT_ONCE))  # half a TLS record makes it unusable
        except (OSError, ResponseError):
            return False
        return self._http2.keep_alive

    def _send(self, request: Request, deadline: Deadline) -> None:
        http2 = self._http2
        http2.start(request)
        self._socket.send(http2.take(), deadline)
        while not http2.complete:  # the server has to say first that it takes more
            if self._read(deadline):
                return
            self._flush(deadline)

    def _receive(self, deadline: Deadline) -> Http2Reply:
        while not self._http2.over:
            if not self._read(deadline):
                self._flush(deadline)
        return self._http2.reply()

    def _read(self, deadline: Deadline) -> bool:
        count = self._socket.receive(self._http2.buffer(), deadline)
        if not count:
            raise ConnectionResetError(CLOSED)
        return self._http2.received(count)

    def _flush(self, deadline: Deadline) -> None:
        out = self._http2.take()
        if out:
            self._socket.send(out, deadline)


class Http2Transport(PoolTransport[Request, Http2Reply]):
    """Each call has a connection to itself. Threads may share it."""

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(config)
        self._head = Head(config)
        self._tls = None if config.tls is None else config.tls.context("h2")
        self._lock = threading.Lock()
        self._streams: GrpcTransport | None = None

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """As over grpcio, which does it."""
        self._check_open()
        with self._lock:
            if self._streams is None:
                from tritonsmith_client._sync.grpc import GrpcTransport  # for those who stream only

                self._streams = GrpcTransport(self._config)
        return self._streams.stream(exchange, timeout)

    def close(self) -> None:
        super().close()
        if self._streams is not None:
            self._streams.close()

    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        fields, others = self._head.fields(exchange, deadline)
        return fields, others, wire_message(exchange.body, self._config.compression)

    def _open(self, deadline: Deadline) -> _Connection:
        config = self._config
        tls, name = self._tls, server_name(config)
        sock = connect(config.address, tls, name, deadline, "h2", config.keepalive)
        try:
            return _Connection(sock, deadline)
        except BaseException:
            sock.close()
            raise

    def _value(self, exchange: Exchange[T], reply: Http2Reply) -> T:
        return exchange.parse(message_of(reply, exchange.what))
