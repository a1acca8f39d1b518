"""gRPC in HTTP/2 of our own, in an event loop: what `http2transport` does with blocking sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

from tritonsmith_client._async.call_timer import Alarm
from tritonsmith_client._async.pool import AsyncPoolTransport
from tritonsmith_client._exchange.exchange import Exchange
from tritonsmith_client._http2.connection import Http2Connection, Http2Reply, Request
from tritonsmith_client._http2.grpc_framing import Head, message_of, wire_message
from tritonsmith_client._net.connection_config import Link, server_name
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.socket_options import keep_alive

if TYPE_CHECKING:
    from tritonsmith_client._async.grpc import AsyncGrpcTransport

__all__ = ["AsyncHttp2Transport"]

T = TypeVar("T")
_PIECE = 1 << 20


class _Connection(asyncio.BufferedProtocol):
    """One connection; used by one call at a time."""

    def __init__(self) -> None:
        self._http2 = Http2Connection()
        self._lost = False
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reply: asyncio.Future[Http2Reply] | None = None
        self._alarm = Alarm(lambda: self._fail(TimeoutError()))

    @property
    def usable(self) -> bool:
        return self._http2.keep_alive and not self._lost

    @property
    def silent(self) -> bool:
        return self._http2.silent

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # What the transport below calls.

    async def opened(self) -> None:
        """Waits for the server's settings. Raises OSError, ResponseError."""
        try:
            await self._ready
        except BaseException:
            self.abort()
            raise

    async def exchange(self, request: Request, deadline: Deadline) -> Http2Reply:
        """Sends a request and waits for its reply; TimeoutError when the time is over."""
        self._alarm.on(deadline)
        reply: asyncio.Future[Http2Reply] = asyncio.get_running_loop().create_future()
        self._http2.start(request)
        self._reply = reply
        try:
            self._flush()
            return await reply
        finally:
            self._alarm.off()
            if reply.done() and not reply.cancelled():
                reply.exception()  # seen, even where the call was cancelled first
            self._reply = None

    def abort(self) -> None:
        self._lost = True
        self._alarm.close()
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        """Writes what may be sent, as long as the transport has room for it."""
        assert self._transport is not None
        while not self._paused and not self._lost:
            out = self._http2.take(_PIECE)
            if not out:
                return
            self._transport.write(b"".join(out) if len(out) > 1 else out[0])

    def _fail(self, error: Exception) -> None:
        self.abort()
        for waiter in (self._reply, self._ready):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)


class AsyncHttp2Transport(AsyncPoolTransport[Request, Http2Reply]):
    """Each call has a connection to itself."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._head = Head(link)
        self._tls = None if link.tls is None else link.tls.context("h2")
        self._streams: AsyncGrpcTransport | None = None

    def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """As over grpcio, which does it."""
        if self._streams is None:
            from tritonsmith_client._async.grpc import (
                AsyncGrpcTransport,  # for those who stream only
            )

            self._streams = AsyncGrpcTransport(self._link)
        return self._streams.stream(exchange, timeout)

    async def close(self) -> None:
        await super().close()
        if self._streams is not None:
            await self._streams.close()

    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        fields, others = self._head.fields(exchange, deadline)
        return fields, others, wire_message(exchange.body, self._link.compression)

    async def _open(self) -> _Connection:
        loop, address = asyncio.get_running_loop(), self._address
        if address.unix:
            _, connection = await loop.create_unix_connection(_Connection, address.path)
        else:
            transport, connection = await loop.create_connection(
                _Connection,
                address.host,
                address.port,
                ssl=self._tls,
                server_hostname=server_name(self._link),
            )
            keep_alive(transport.get_extra_info("socket"), self._link.keepalive)
        await connection.opened()
        return connection

    def _value(self, exchange: Exchange[T], reply: Http2Reply) -> T:
        return exchange.parse(message_of(reply, exchange.what))
