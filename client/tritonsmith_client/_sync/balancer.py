"""One transport for each of several servers; the balancer says which one takes a call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from tritonsmith_client._core.balancing import Balancer, addresses_of, is_server_fault
from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._exchange.transport import Transport
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_errors import closed
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.name_lookup import look_up
from tritonsmith_client.errors import TritonError

__all__ = ["BalancedTransport"]


class BalancedTransport:
    """Threads may share it. Args: connect: makes the transport for one address."""

    def __init__(self, balancer: Balancer, connect: Callable[[Address], Transport]) -> None:
        self._balancer = balancer
        self._connect = connect
        self._transports: dict[Address, Transport] = {}
        self._lock = threading.Lock()
        self._closed = False

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send a request to the server whose turn it is. Raises TritonError."""
        self._refresh(deadline)
        address = self._balancer.pick(exchange.affinity, exchange.tried)
        try:
            reply = self._transport(address).send(exchange, deadline)
        except TritonError as error:
            if is_server_fault(error):
                self._balancer.failed(address)
            raise
        self._balancer.worked(address)
        return reply

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """Yield the replies to one request, from the server whose turn it is.

        Raises TritonError.
        """
        self._refresh(Deadline(timeout))
        address = self._balancer.pick(exchange.affinity)
        try:
            yield from self._transport(address).stream(exchange, timeout)
        except TritonError as error:
            if is_server_fault(error):
                self._balancer.failed(address)
            raise
        self._balancer.worked(address)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        for transport in list(self._transports.values()):
            transport.close()

    def _refresh(self, deadline: Deadline) -> None:
        if self._balancer.due():
            found = self._look_up(Deadline(self._balancer.patience(deadline.remaining())))
            for gone in self._balancer.update(found):
                transport = self._transports.pop(gone, None)
                if transport is not None:
                    transport.close()

    def _look_up(self, deadline: Deadline) -> list[Address]:
        found: list[Address] = []
        for name in self._balancer.names:
            with contextlib.suppress(OSError):
                found += addresses_of(name, look_up(name.host, name.port, deadline))
        return found

    def _transport(self, address: Address) -> Transport:
        with self._lock:
            if self._closed:
                raise closed("Client")
            transport = self._transports.get(address)
            if transport is None:
                transport = self._transports[address] = self._connect(address)
            return transport
