"""The events of a stream over HTTP as they come, from a connection of their own.

Closing the connection is how a server hears that nobody wants more of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._http.sse import BUFFER, StreamReader
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_errors import lost, silent
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import TritonError

if TYPE_CHECKING:
    from tritonsmith_client._sync.sockets import DeadlineSocket

__all__ = ["events"]


def events(
    connection: DeadlineSocket,
    request: Sequence[Buffer],
    exchange: Exchange[T],
    timeout: float | None,
    address: Address,
) -> Iterator[T]:
    """Args: timeout: for each of them. Raises TritonError."""
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
