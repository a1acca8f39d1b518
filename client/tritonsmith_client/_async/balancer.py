"""One transport for each of several servers; the balancer says which one takes a call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tritonsmith_client._async.sockets import async_look_up
from tritonsmith_client._core.balancing import Balancer, addresses_of, is_server_fault
from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._exchange.transport import AsyncTransport
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_errors import closed
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client.errors import TritonError

__all__ = ["AsyncBalancedTransport"]


class AsyncBalancedTransport:
    """Tasks may share it. Args: connect: makes the transport for one address."""

    def __init__(self, balancer: Balancer, connect: Callable[[Address], AsyncTransport]) -> None:
        self._balancer = balancer
        self._connect = connect
        self._transports: dict[Address, AsyncTransport] = {}
        self._closed = False

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send a request to the server whose turn it is. Raises TritonError."""
        await self._refresh(deadline)
        address = self._balancer.pick(exchange.affinity, exchange.tried)
        try:
            reply = await self._transport(address).send(exchange, deadline)
        except TritonError as error:
            if is_server_fault(error):
                self._balancer.failed(address)
            raise
        self._balancer.worked(address)
        return reply

    async def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """Yield the replies to one request, from the server whose turn it is.

        Raises TritonError.
        """
        await self._refresh(Deadline(timeout))
        address = self._balancer.pick(exchange.affinity)
        parts = self._transport(address).stream(exchange, timeout)
        try:
            async for reply in parts:
                yield reply
        except TritonError as error:
            if is_server_fault(error):
                self._balancer.failed(address)
            raise
        finally:
            await parts.aclose()  # type: ignore[attr-defined]  # an async generator
        self._balancer.worked(address)

    async def close(self) -> None:
        self._closed = True
        for transport in list(self._transports.values()):
            await transport.close()

    async def _refresh(self, deadline: Deadline) -> None:
        if self._balancer.due():
            found = await self._look_up(Deadline(self._balancer.patience(deadline.remaining())))
            for gone in self._balancer.update(found):
                transport = self._transports.pop(gone, None)
                if transport is not None:
                    await transport.close()

    async def _look_up(self, deadline: Deadline) -> list[Address]:
        found: list[Address] = []
        for name in self._balancer.names:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                entries = await asyncio.wait_for(
                    async_look_up(name.host, name.port), deadline.remaining()
                )
                found += addresses_of(name, entries)
        return found

    def _transport(self, address: Address) -> AsyncTransport:
        if self._closed:
            raise closed("AsyncClient")
        transport = self._transports.get(address)
        if transport is None:
            transport = self._transports[address] = self._connect(address)
        return transport
