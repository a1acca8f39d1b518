"""The transport that fits an address: HTTP, gRPC by grpcio or own HTTP/2, or several servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tritonsmith_client._exchange.transport import Transport
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_config import ConnectionConfig

if TYPE_CHECKING:
    from tritonsmith_client._core.event_hooks import Hooks

__all__ = ["balanced", "hooked", "transport"]


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


def transport(config: ConnectionConfig, hooks: Hooks | None = None) -> Transport:
    """Return what reaches a server, by its protocol, and tells the hooks."""
    return hooked(_by_protocol(config), hooks, config.address)


def hooked(transport: Transport, hooks: Hooks | None, address: Address) -> Transport:
    """Return a transport that tells the hooks; the same where there are none."""
    if hooks is None:
        return transport
    from tritonsmith_client._core.event_hooks import HookedTransport  # for those who listen

    return HookedTransport(transport, hooks, address)


def _by_protocol(config: ConnectionConfig) -> Transport:
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
