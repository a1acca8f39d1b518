"""HTTP/1.1 in an event loop: what `httptransport` does with blocking sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from tritonsmith_client._async.call_timer import Alarm
from tritonsmith_client._async.pool import AsyncPoolTransport
from tritonsmith_client._async.sse import async_events
from tritonsmith_client._exchange.exchange import Exchange
from tritonsmith_client._http.body import aligned
from tritonsmith_client._http.messages import RequestWriter
from tritonsmith_client._http.reader import HttpResponseReader
from tritonsmith_client._net.connection_config import Link, server_name
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.socket_options import keep_alive
from tritonsmith_client._protocol.http.reply_template import Foreseen, Reply, Request, value_of
from tritonsmith_client._values.buffers import Buffer

__all__ = ["AsyncHttpTransport"]

T = TypeVar("T")
_PIECE = 1 << 20


class _Connection(asyncio.BufferedProtocol):
    """One connection; used by one call at a time."""

    def __init__(self) -> None:
        self.lost = False
        self._keep_alive = True
        self._reader = HttpResponseReader()
        self._foreseen: Foreseen | None = None
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._spare = bytearray(1)
        self._alarm = Alarm(self._expire)

    @property
    def usable(self) -> bool:
        return self._keep_alive and not self.lost

    @property
    def silent(self) -> bool:
        return self._reader.silent

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._reply is None or self._reply.done():
            return memoryview(self._spare)
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._reply is None or self._reply.done():  # nobody asked for that
            self.abort()
            return
        reader, foreseen = self._reader, self._foreseen
        try:
            if (
                foreseen is not None
                and reader.fresh
                and reader.holds(foreseen.start, foreseen.size, nbytes)
            ):
                tensors = aligned(foreseen.size)
                tensors[:] = reader.scratch_view[len(foreseen.start) : nbytes]
                self._keep_alive = True
                self._reply.set_result(foreseen.result(tensors))
            elif reader.received(nbytes):
                self._keep_alive = reader.keep_alive
                self._reply.set_result(reader.reply())
        except Exception as error:
            self._reply.set_exception(error)

    def eof_received(self) -> None:
        if self._reply is not None and not self._reply.done() and self._reader.ended():
            self._keep_alive = False
            self._reply.set_result(self._reader.reply())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._alarm.close()
        error = exc or ConnectionResetError("the server closed the connection")
        for waiter in (self._reply, self._writable):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # What the transport below calls.

    async def exchange(self, request: Request, deadline: Deadline) -> Reply:
        """Sends a request and waits for its reply; TimeoutError when the time is over."""
        self._alarm.on(deadline)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        buffers, self._foreseen = request
        if not self._reader.fresh:
            self._reader.start(True)
        self._reply = reply
        try:
            await self._write(buffers)
            return await reply
        finally:
            self._alarm.off()
            if reply.done() and not reply.cancelled():
                reply.exception()  # seen, even where the write failed first
            self._reply = None

    def abort(self) -> None:
        self.lost = True
        self._alarm.close()
        if self._transport is not None:
            self._transport.abort()

    async def _write(self, buffers: Sequence[Buffer]) -> None:
        assert self._transport is not None
        if sum(map(len, buffers)) <= _PIECE:
            self._transport.write(b"".join(buffers))
            return
        for buffer in buffers:
            view = memoryview(buffer)
            for start in range(0, len(view), _PIECE):
                self._transport.write(view[start : start + _PIECE])
                if self._writable is not None:
                    await asyncio.shield(self._writable)

    def _expire(self) -> None:
        for waiter in (self._reply, self._writable):
            if waiter is not None and not waiter.done():
                waiter.set_exception(TimeoutError())


class AsyncHttpTransport(AsyncPoolTransport[Request, Reply]):
    """Each call has a connection to itself."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._write = RequestWriter(link)
        self._tls = None if link.tls is None else link.tls.context()

    async def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncGenerator[T, None]:
        """The events of a reply; the timeout is for each of them. Raises TritonError."""
        self._check_open()
        request = self._write(exchange)
        connection = await self._within(self._open_stream, exchange.what, Deadline(timeout))
        parts = async_events(connection, request, exchange, timeout, self._address)
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()

    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        return self._write(exchange), exchange.template

    _value = staticmethod(value_of)

    async def _open_stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self._address
        if address.unix:
            return await asyncio.open_unix_connection(address.path)
        name = server_name(self._link)
        return await asyncio.open_connection(
            address.host, address.port, ssl=self._tls, server_hostname=name
        )

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._address.unix:
            _, connection = await loop.create_unix_connection(_Connection, self._address.path)
        else:
            transport, connection = await loop.create_connection(
                _Connection,
                self._address.host,
                self._address.port,
                ssl=self._tls,
                server_hostname=server_name(self._link),
            )
            keep_alive(transport.get_extra_info("socket"), self._link.keepalive)
        return connection
