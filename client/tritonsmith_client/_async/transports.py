"""The transport that fits an address, for asyncio; see `_sync.transports`."""

from __future__ import annotations

from collections.abc import Callable

from tritonsmith_client._exchange.transport import AsyncTransport
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_config import ConnectionConfig

__all__ = ["async_balanced", "async_transport"]


def async_balanced(
    addresses: tuple[Address, ...], resolve: bool, connect: Callable[[Address], AsyncTransport]
) -> AsyncTransport:
    first = connect(addresses[0])  # shows at once what is wrong with the settings
    if len(addresses) == 1 and not resolve:
        return first
    from tritonsmith_client._async.balancer import AsyncBalancedTransport
    from tritonsmith_client._core.balancing import Balancer  # not for a single server

    return AsyncBalancedTransport(Balancer(addresses, resolve), connect)


def async_transport(config: ConnectionConfig) -> AsyncTransport:
    """Return what reaches a server, by its protocol."""
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
