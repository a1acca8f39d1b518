"""Connections of an event loop, made as the client's settings say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tritonsmith_client._net.address import Address
from tritonsmith_client._net.connection_config import ConnectionConfig, server_name
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.name_lookup import (
    Outcome,
    Places,
    found,
    is_literal,
    look_up,
    start_look_up,
)
from tritonsmith_client._net.socket_options import keep_alive

if TYPE_CHECKING:
    import ssl

__all__ = ["async_look_up", "connect", "open_stream"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def connect(
    protocol: Callable[[], P], config: ConnectionConfig, tls: ssl.SSLContext | None
) -> P:
    """Return a connection to the first of the host's addresses that answers. Raises OSError."""
    loop, address = asyncio.get_running_loop(), config.address
    if address.unix:
        return (await loop.create_unix_connection(protocol, address.path))[1]
    transport, made = await loop.create_connection(
        protocol, sock=await _open(address), ssl=tls, server_hostname=server_name(config)
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
        sock=await _open(address), ssl=tls, server_hostname=server_name(config)
    )
    keep_alive(writer.get_extra_info("socket"), config.keepalive)
    return reader, writer


async def async_look_up(host: str, port: int) -> Places:
    """As `look_up`; the event loop's own threads would be waited for when it ends."""
    if is_literal(host):
        return look_up(host, port, Deadline(None))
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Outcome] = loop.create_future()

    def settle(made: Outcome) -> None:
        if not outcome.done():
            outcome.set_result(made)

    def done(made: Outcome) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
            loop.call_soon_threadsafe(settle, made)

    start_look_up(host, port, done)
    return found(await outcome)


async def _open(address: Address) -> socket.socket:
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in await async_look_up(address.host, address.port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, place)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:  # cancelled
            sock.close()
            raise
    raise failure
