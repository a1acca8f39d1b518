"""The transport that fits an address, for asyncio; see `_sync.transports`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tritonsmith_client._exchange.transport import AsyncTransport
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_config import ConnectionConfig

if TYPE_CHECKING:
    from tritonsmith_client._core.event_hooks import Hooks

__all__ = ["async_balanced", "async_hooked", "async_transport"]


def async_balanced(
    addresses: tuple[Address, ...], resolve: bool, connect: Callable[[Address], AsyncTransport]
) -> AsyncTransport:
    first = connect(addresses[0])  # shows at once what is wrong with the settings
    if len(addresses) == 1 and not resolve:
        return first
    from tritonsmith_client._async.balancer import AsyncBalancedTransport
    from tritonsmith_client._core.balancing import Balancer  # not for a single server

    return AsyncBalancedTransport(Balancer(addresses, resolve), connect)


def async_transport(config: ConnectionConfig, hooks: Hooks | None = None) -> AsyncTransport:
    """Return what reaches a server, by its protocol, and tells the hooks."""
    return async_hooked(_by_protocol(config), hooks, config.address)


def async_hooked(
    transport: AsyncTransport, hooks: Hooks | None, address: Address
) -> AsyncTransport:
    """Return a transport that tells the hooks; the same where there are none."""
    if hooks is None:
        return transport
    from tritonsmith_client._core.event_hooks import AsyncHookedTransport  # for those who listen

    return AsyncHookedTransport(transport, hooks, address)


def _by_protocol(config: ConnectionConfig) -> AsyncTransport:
    if config.address.protocol == "grpc" and config.http2 == "own":
        from tritonsmith_client._async.http2 import AsyncHttp2Transport  # only the one that is used

        return AsyncHttp2Transport(config)
    if config.address.protocol == "grpc":
        from tritonsmith_client._async.grpc import (
            AsyncGrpcTransport,  # grpcio is not needed for HTTP
        )

        return AsyncGrpcTransport(config)
    from tritonsmith_client._async.http11 import AsyncHttpTransport

    return AsyncHttpTransport(config)
