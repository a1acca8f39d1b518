"""HTTP/1.1 over plain sockets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tritonsmith_client._exchange.exchange import Exchange, Foreseen, T
from tritonsmith_client._http.body import aligned
from tritonsmith_client._http.messages import HttpReply, RequestWriter
from tritonsmith_client._http.reader import HttpResponseReader
from tritonsmith_client._http.sse import BUFFER, StreamReader
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_config import ConnectionConfig, server_name
from tritonsmith_client._net.connection_errors import lost, silent
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.http.reply_template import Reply, Request, value_of
from tritonsmith_client._sync.connection import CLOSED, Connection
from tritonsmith_client._sync.pool import PoolTransport
from tritonsmith_client._sync.sockets import DeadlineSocket, connect
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import TritonError

__all__ = ["HttpTransport"]

_NOTHING = memoryview(b"")


class _Connection(Connection[Request, Reply]):
    """One socket and the reader of its responses."""

    keep_alive = False

    def __init__(self, sock: DeadlineSocket) -> None:
        super().__init__(sock)
        self._reader = HttpResponseReader()
        self._foreseen: Foreseen | None = None

    @property
    def silent(self) -> bool:
        return self._reader.silent

    def usable(self) -> bool:
        return self._socket.quiet()

    def _send(self, request: Request, deadline: Deadline) -> None:
        buffers, self._foreseen = request
        if not self._reader.fresh:
            self._reader.start(True)
        self._socket.send(buffers, deadline)

    def _receive(self, deadline: Deadline) -> Reply:
        """Receive a reply; the tensors of one that was foreseen go into their place at once."""
        foreseen = self._foreseen
        if foreseen is None:
            return self._receive_any(deadline)
        reader, start, size = self._reader, foreseen.start, foreseen.size
        length = len(start)
        first = reader.scratch_view[:length]
        if size:
            tensors = aligned(size)
            count = self._socket.receive_both(first, tensors, deadline)
        else:
            tensors, count = _NOTHING, self._socket.receive(first, deadline)
        if count >= length and reader.scratch.startswith(start):
            at = count - length
            while at < size:
                reader.fresh = reader.silent = False
                count = self._socket.fill(tensors[at:], deadline)
                if not count:
                    raise ConnectionResetError(CLOSED)
                at += count
            self.keep_alive = True
            return foreseen.result(tensors)
        if not count:
            raise ConnectionResetError(CLOSED)
        reader.received(min(count, length))
        reader.feed(tensors[: max(0, count - length)])
        return self._receive_any(deadline)

    def _receive_any(self, deadline: Deadline) -> HttpReply:
        reader, receive = self._reader, self._socket.receive
        while not reader.complete:
            count = receive(reader.buffer(), deadline)
            if count:
                reader.received(count)
            elif not reader.ended():
                raise ConnectionResetError(CLOSED)
        self.keep_alive = reader.keep_alive
        return reader.reply()


class HttpTransport(PoolTransport[Request, Reply]):
    """Each call has a connection to itself. Threads may share it."""

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(config)
        self._write = RequestWriter(config)
        self._tls = None if config.tls is None else config.tls.context()

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """Yield the events of a reply; the timeout is for each of them. Raises TritonError."""
        self._check_open()
        request = self._write(exchange)
        connection = self._connect(self._open_stream, exchange.what, Deadline(timeout))
        yield from _events(connection, request, exchange, timeout, self._config.address)

    def _request(self, exchange: Exchange[Any], deadline: Deadline) -> Request:
        return self._write(exchange), exchange.foreseen

    _value = staticmethod(value_of)

    def _open(self, deadline: Deadline) -> _Connection:
        return _Connection(self._open_stream(deadline))

    def _open_stream(self, deadline: Deadline) -> DeadlineSocket:
        config = self._config
        tls, name = self._tls, server_name(config)
        return connect(config.address, tls, name, deadline, keepalive=config.keepalive)


def _events(
    connection: DeadlineSocket,
    request: Sequence[Buffer],
    exchange: Exchange[T],
    timeout: float | None,
    address: Address,
) -> Iterator[T]:
    """Yield the events of a stream as they come. Raises TritonError.

    Closing its connection is how a server hears that nobody wants more of them.

    Args:
        timeout: for each of them.
    """
    deadline = Deadline(timeout)
    reader, buffer = StreamReader(), memoryview(bytearray(BUFFER))
    try:
        connection.send(request, deadline)
        while not reader.done:
            count = connection.receive(buffer, deadline)
            for reply in reader.feed(buffer[:count]):
                yield exchange.parse(reply)
                deadline = Deadline(timeout)
    except TritonError:  # some are a TimeoutError, too
        raise
    except TimeoutError as exc:
        raise silent(exchange.what, timeout) from exc
    except OSError as exc:
        raise lost(exchange.what, address, exc, complete=True) from exc
    finally:
        connection.close()
