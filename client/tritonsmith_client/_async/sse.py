"""Server-sent events as they come in, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._http.sse import StreamReader
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_errors import lost
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import TritonError

if TYPE_CHECKING:
    import asyncio

from tritonsmith_client._http.sse import BUFFER
from tritonsmith_client._net.connection_errors import silent

__all__ = ["async_events"]


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
