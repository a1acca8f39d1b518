"""gRPC in HTTP/2 of our own, in an event loop: what `_sync.http2` does with blocking sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from tritonsmith_client._async.connection import PIECE, AsyncConnection
from tritonsmith_client._async.pool import AsyncPoolTransport
from tritonsmith_client._async.sockets import connect
from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._http2.connection import Http2Connection, Http2Reply, Request
from tritonsmith_client._http2.grpc_framing import Head, message_of, wire_message
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._values.buffers import Buffer

if TYPE_CHECKING:
    from tritonsmith_client._async.grpc import AsyncGrpcTransport

__all__ = ["AsyncHttp2Transport"]


class _Connection(AsyncConnection[Request, Http2Reply]):
    """One socket and the HTTP/2 that goes over it."""

    def __init__(self) -> None:
        super().__init__()
        self._http2 = Http2Connection()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def keep_alive(self) -> bool:
        return self._http2.keep_alive

    @property
    def silent(self) -> bool:
        return self._http2.silent

    async def opened(self) -> None:
        """Wait for the server's settings. Raises OSError, ResponseError."""
        try:
            await self._ready
        except BaseException:
            self.close()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        secure = transport.get_extra_info("ssl_object")
        if secure is not None and secure.selected_alpn_protocol() != "h2":
            self._fail(OSError("the server does not speak h2"))
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._http2.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            over = self._http2.received(nbytes)
        except Exception as error:
            self._fail(error)
            return
        if self._http2.ready and not self._ready.done():
            self._ready.set_result(None)
        reply = self._reply
        if over and reply is not None and not reply.done():
            reply.set_result(self._http2.reply())
        self._flush()

    def _start(self, request: Request) -> None:
        self._http2.start(request)

    def _more(self) -> Buffer:
        out = self._http2.take(PIECE)
        if not out:
            self.sent = self._http2.complete
            return b""
        return b"".join(out) if len(out) > 1 else out[0]

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        if not self._ready.done():
            self._ready.set_exception(error)


class AsyncHttp2Transport(AsyncPoolTransport[Request, Http2Reply]):
    """Each call has a connection to itself."""

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(config)
        self._head = Head(config)
        self._tls = None if config.tls is None else config.tls.context("h2")
        self._streams: AsyncGrpcTransport | None = None

    def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """As over grpcio, which does it."""
        self._check_open()
        if self._streams is None:
            from tritonsmith_client._async.grpc import (
                AsyncGrpcTransport,  # for those who stream only
            )

            self._streams = AsyncGrpcTransport(self._config)
        return self._streams.stream(exchange, timeout)

    async def close(self) -> None:
        await super().close()
        if self._streams is not None:
            await self._streams.close()

    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        fields, others = self._head.fields(exchange, deadline)
        return fields, others, wire_message(exchange.body, self._config.compression)

    async def _open(self) -> _Connection:
        connection = await connect(_Connection, self._config, self._tls)
        await connection.opened()
        return connection

    def _value(self, exchange: Exchange[T], reply: Http2Reply) -> T:
        return exchange.parse(message_of(reply, exchange.what))
