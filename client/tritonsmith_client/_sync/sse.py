"""The events of a stream over HTTP as they come, from a connection of their own.

Closing the connection is how a server hears that nobody wants more of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.http.generate import StreamReader
from tritonsmith_client._sync.pool import lost
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import DeadlineExceededError, TritonError

if TYPE_CHECKING:
    import asyncio

    from tritonsmith_client._sync.sockets import DeadlineSocket

__all__ = ["async_events", "events"]

_BUFFER = 1 << 16


def events(
    connection: DeadlineSocket,
    request: Sequence[Buffer],
    exchange: Exchange[T],
    timeout: float | None,
    address: Address,
) -> Iterator[T]:
    """Args: timeout: for each of them. Raises TritonError."""
    deadline = Deadline(timeout)
    reader, buffer = StreamReader(), memoryview(bytearray(_BUFFER))
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
        raise _silent(exchange.what, timeout) from exc
    except OSError as exc:
        raise lost(exchange.what, address, exc, complete=True) from exc
    finally:
        connection.close()


async def async_events(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    request: Sequence[Buffer],
    exchange: Exchange[T],
    timeout: float | None,
    address: Address,
) -> AsyncGenerator[T, None]:
    """As `events`."""
    import asyncio  # a synchronous client does without

    deadline = Deadline(timeout)
    reader, (source, sink) = StreamReader(), connection
    try:
        sink.writelines(request)
        left = deadline.left()  # before there is a coroutine that nobody would await
        await asyncio.wait_for(sink.drain(), left)
        while not reader.done:
            left = deadline.left()
            data = await asyncio.wait_for(source.read(_BUFFER), left)
            for reply in reader.feed(data):
                yield exchange.parse(reply)
                deadline = Deadline(timeout)
    except TritonError:
        raise
    except (TimeoutError, asyncio.TimeoutError) as exc:
        raise _silent(exchange.what, timeout) from exc
    except OSError as exc:
        raise lost(exchange.what, address, exc, complete=True) from exc
    finally:
        sink.transport.abort()


def _silent(what: str, timeout: float | None) -> TritonError:
    return DeadlineExceededError(f"{what} failed: no response within {timeout:g} s")
