"""HTTP/1.1 in an event loop: what `_sync.http11` does with blocking sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from tritonsmith_client._async.connection import PIECE, AsyncConnection
from tritonsmith_client._async.pool import AsyncPoolTransport
from tritonsmith_client._async.sockets import connect, open_stream
from tritonsmith_client._exchange.exchange import Exchange, Foreseen, T
from tritonsmith_client._http.body import aligned
from tritonsmith_client._http.messages import RequestWriter
from tritonsmith_client._http.reader import HttpResponseReader
from tritonsmith_client._http.sse import BUFFER, StreamReader
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.connection_errors import lost, silent
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.http.reply_template import Reply, Request, value_of
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import TritonError

__all__ = ["AsyncHttpTransport"]


class _Connection(AsyncConnection[Request, Reply]):
    """One socket and the reader of its responses."""

    keep_alive = False

    def __init__(self) -> None:
        super().__init__()
        self._reader = HttpResponseReader()
        self._foreseen: Foreseen | None = None
        self._rest: list[Buffer] = []  # from the last piece to the next one
        self._spare = bytearray(1)

    @property
    def silent(self) -> bool:
        return self._reader.silent

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._reply is None or self._reply.done():
            return memoryview(self._spare)
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._reply is None or self._reply.done():  # nobody asked for that
            self.close()
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
                self.keep_alive = True
                self._reply.set_result(foreseen.result(tensors))
            elif reader.received(nbytes):
                self.keep_alive = reader.keep_alive
                self._reply.set_result(reader.reply())
        except Exception as error:
            self._fail(error)

    def eof_received(self) -> None:
        if self._reply is not None and not self._reply.done() and self._reader.ended():
            self._reply.set_result(self._reader.reply())
        super().eof_received()

    def _start(self, request: Request) -> None:
        buffers, self._foreseen = request
        if not self._reader.fresh:
            self._reader.start(True)
        self._rest = _pieces(buffers)

    def _more(self) -> Buffer:
        if self._rest:
            return self._rest.pop()
        self.sent = True
        return b""


class AsyncHttpTransport(AsyncPoolTransport[Request, Reply]):
    """Each call has a connection to itself."""

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(config)
        self._write = RequestWriter(config)
        self._tls = None if config.tls is None else config.tls.context()

    async def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncGenerator[T, None]:
        """Yield the events of a reply; the timeout is for each of them. Raises TritonError."""
        self._check_open()
        request = self._write(exchange)
        connection = await self._connect(self._open_stream, exchange.what, Deadline(timeout))
        parts = _events(connection, request, exchange, timeout, self._config.address)
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()

    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        return self._write(exchange), exchange.foreseen

    _value = staticmethod(value_of)

    async def _open(self) -> _Connection:
        return await connect(_Connection, self._config, self._tls)

    async def _open_stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await open_stream(self._config, self._tls)


def _pieces(buffers: Sequence[Buffer]) -> list[Buffer]:
    """Return what is to be written at once, the last one first."""
    if sum(map(len, buffers)) <= PIECE:
        return [b"".join(buffers)]
    views = [memoryview(buffer) for buffer in buffers]
    cut: list[Buffer] = [
        view[at : at + PIECE] for view in views for at in range(0, len(view), PIECE)
    ]
    return cut[::-1]


async def _events(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    request: Sequence[Buffer],
    exchange: Exchange[T],
    timeout: float | None,
    address: Address,
) -> AsyncGenerator[T, None]:
    """As those of `_sync.http11`."""
    deadline = Deadline(timeout)
    reader, (source, sink) = StreamReader(), connection
    try:
        sink.writelines(request)
        left = deadline.left()  # before there is a coroutine that nobody would await
        await asyncio.wait_for(sink.drain(), left)
        while not reader.done:
            left = deadline.left()
            data = await asyncio.wait_for(source.read(BUFFER), left)
            for reply in reader.feed(data):
                yield exchange.parse(reply)
                deadline = Deadline(timeout)
    except TritonError:
        raise
    except (TimeoutError, asyncio.TimeoutError) as exc:
        raise silent(exchange.what, timeout) from exc
    except OSError as exc:
        raise lost(exchange.what, address, exc, complete=True) from exc
    finally:
        sink.transport.abort()
