"""HTTP/1.1 in an event loop: what `httptransport` does with blocking sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from .deadline import Deadline
from .errors import ClosedError, DeadlineExceededError
from .exchange import Exchange, Repeat
from .httpreader import HttpResponseReader
from .httptransport import fixed_headers, no_streams, wire_request
from .httpwire import HttpReply
from .link import Link
from .pooltransport import IDLE_LIMIT, lost, no_connection, server_name
from .tensors import Buffer

__all__ = ["AsyncHttpTransport"]

T = TypeVar("T")
_PIECE = 1 << 20


class _Connection(asyncio.BufferedProtocol):
    """One connection; used by one call at a time."""

    def __init__(self) -> None:
        self.reader = HttpResponseReader()
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[HttpReply] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._spare = bytearray(1)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._reply is None or self._reply.done():
            return memoryview(self._spare)
        return self.reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._reply is None or self._reply.done():  # nobody asked for that
            self.abort()
            return
        try:
            if self.reader.received(nbytes):
                self._reply.set_result(self.reader.reply())
        except Exception as error:
            self._reply.set_exception(error)

    def eof_received(self) -> None:
        if self._reply is not None and not self._reply.done() and self.reader.ended():
            self._reply.set_result(self.reader.reply())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
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

    async def exchange(self, buffers: Sequence[Buffer], deadline: Deadline) -> HttpReply:
        """Sends a request and waits for its reply; TimeoutError when the time is over."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[HttpReply] = loop.create_future()
        self.reader.start(True)
        self._reply = reply
        left = deadline.left()
        timer = None if left is None else loop.call_later(left, self._expire)
        try:
            await self._write(buffers)
            return await reply
        finally:
            if timer is not None:
                timer.cancel()
            if reply.done() and not reply.cancelled():
                reply.exception()  # seen, even where the write failed first
            self._reply = None

    def abort(self) -> None:
        self.lost = True
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


class AsyncHttpTransport:
    """A pool of connections, for each event loop that it is used in, one after the other."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._address = link.address
        self._fixed = fixed_headers(link)
        self._tls = None if link.tls is None else link.tls.context()
        self._idle: deque[_Connection] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Sends a request and reads its reply within the deadline. Raises TritonError."""
        buffers = wire_request(exchange, self._link, self._fixed)
        connection = self._take_idle()
        if connection is not None:
            reply = await self._try(connection, buffers, exchange, deadline, reused=True)
            if reply is not None:
                return exchange.parse(reply)
        connection = await self._connect(exchange.what, deadline)
        reply = await self._try(connection, buffers, exchange, deadline, reused=False)
        assert reply is not None
        return exchange.parse(reply)

    def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """Raises UnsupportedError."""
        raise no_streams(exchange.what)

    async def close(self) -> None:
        self._closed = True
        if self._loop is asyncio.get_running_loop():  # those of an ended loop cannot be closed
            while self._idle:
                self._idle.pop().abort()
            await asyncio.sleep(0)  # lets the event loop take note
        self._idle.clear()

    async def _try(
        self,
        connection: _Connection,
        buffers: list[Buffer],
        exchange: Exchange[T],
        deadline: Deadline,
        reused: bool,
    ) -> HttpReply | None:
        """One attempt; None where a reused connection was stale and nothing was executed."""
        try:
            reply = await connection.exchange(buffers, deadline)
        except TimeoutError as exc:
            connection.abort()
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except OSError as exc:
            connection.abort()
            if reused and exchange.repeat is Repeat.ALWAYS and connection.reader.silent:
                return None
            raise lost(exchange.what, self._address, exc, complete=True) from exc
        except BaseException:  # a malformed reply, or cancelled: its rest would poison the next
            connection.abort()
            raise
        if connection.reader.keep_alive and not connection.lost:
            self._give_back(connection)
        else:
            connection.abort()
        return reply

    def _take_idle(self) -> _Connection | None:
        if self._closed:
            raise ClosedError("the client was used after close(): make a new AsyncClient")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._idle = loop, deque()
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost:
                return connection
        return None

    def _give_back(self, connection: _Connection) -> None:
        if self._closed or len(self._idle) >= IDLE_LIMIT:
            connection.abort()
        else:
            self._idle.append(connection)

    async def _connect(self, what: str, deadline: Deadline) -> _Connection:
        try:
            return await asyncio.wait_for(self._open(), deadline.left())
        except (TimeoutError, asyncio.TimeoutError) as exc:
            raise DeadlineExceededError(
                f"{what} failed: no connection to {self._address} within the {deadline}"
            ) from exc
        except OSError as exc:
            raise no_connection(what, self._address, exc) from exc

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._address.unix:
            _, connection = await loop.create_unix_connection(_Connection, self._address.path)
        else:
            _, connection = await loop.create_connection(
                _Connection,
                self._address.host,
                self._address.port,
                ssl=self._tls,
                server_hostname=server_name(self._link),
            )
        return connection
