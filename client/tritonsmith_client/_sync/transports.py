"""The transport that fits an address: HTTP, gRPC by grpcio or own HTTP/2, or several servers."""

from __future__ import annotations

from collections.abc import Callable

from tritonsmith_client._exchange.transport import Transport
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_config import ConnectionConfig

__all__ = ["balanced", "transport"]


def balanced(
    addresses: tuple[Address, ...], resolve: bool, connect: Callable[[Address], Transport]
) -> Transport:
    first = connect(addresses[0])  # shows at once what is wrong with the settings
    if len(addresses) == 1 and not resolve:
        return first
    first.close()
    from tritonsmith_client._core.balancing import Balancer  # not for a single server
    from tritonsmith_client._sync.balancer import BalancedTransport

    return BalancedTransport(Balancer(addresses, resolve), connect)


def transport(config: ConnectionConfig) -> Transport:
    """Return what reaches a server, by its protocol."""
    if config.address.protocol == "grpc" and config.http2 == "own":
        from tritonsmith_client._sync.http2 import (
            Http2Transport,  # only the one that is used is imported
        )

        return Http2Transport(config)
    if config.address.protocol == "grpc":
        from tritonsmith_client._sync.grpc import GrpcTransport  # grpcio is not needed for HTTP

        return GrpcTransport(config)
    from tritonsmith_client._sync.http11 import HttpTransport

    return HttpTransport(config)
