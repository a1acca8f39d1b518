"""Connections of an event loop, made as the client's settings say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tritonsmith_client._net.connection_config import ConnectionConfig, server_name
from tritonsmith_client._net.socket_options import keep_alive

if TYPE_CHECKING:
    import ssl

__all__ = ["connect", "open_stream"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def connect(
    protocol: Callable[[], P], config: ConnectionConfig, tls: ssl.SSLContext | None
) -> P:
    """Return a connection to the first of the host's addresses that answers. Raises OSError."""
    loop, address = asyncio.get_running_loop(), config.address
    if address.unix:
        return (await loop.create_unix_connection(protocol, address.path))[1]
    transport, made = await loop.create_connection(
        protocol, address.host, address.port, ssl=tls, server_hostname=server_name(config)
    )
    keep_alive(transport.get_extra_info("socket"), config.keepalive)
    return made


async def open_stream(
    config: ConnectionConfig, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `connect`, for bytes that are read and written one after the other."""
    address = config.address
    if address.unix:
        return await asyncio.open_unix_connection(address.path)
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=tls, server_hostname=server_name(config)
    )
    keep_alive(writer.get_extra_info("socket"), config.keepalive)
    return reader, writer
