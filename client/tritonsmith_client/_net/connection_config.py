"""How to reach a server: address, credentials, headers and compression, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tritonsmith_client._net.address import Address
from tritonsmith_client._net.headers import CALL_HEADERS, Headers, client_headers
from tritonsmith_client._net.tls import TLS
from tritonsmith_client._values.argument import Argument, check_instance
from tritonsmith_client._values.validators import ABOVE_0, choice, or_none, seconds
from tritonsmith_client.errors import InputError

__all__ = ["HeaderSource", "KEEPALIVE", "ConnectionConfig", "connection_config", "server_name"]

HeaderSource = Mapping[str, str] | Callable[[], Mapping[str, str]]
# gRPC servers, Triton among them, end a connection that pings them more often than every 300 s.
KEEPALIVE = 330.0


_MOST_KEEPALIVE = 32767  # Linux takes no more for TCP_KEEPIDLE
_ALL_HEADERS = Argument("headers of all calls", client_headers)
_COMPRESSION = Argument("compression", choice("'gzip', 'deflate' or None", "gzip", "deflate", None))
_HTTP2 = Argument("http2", choice("'grpcio' or 'own'", "grpcio", "own"))
_KEEPALIVE = Argument(
    "keepalive",
    or_none(seconds("above 0", ", or None for never", least=ABOVE_0, most=_MOST_KEEPALIVE)),
)


@dataclass(frozen=True)
class ConnectionConfig:
    """How to reach a server.

    Attributes:
        headers: sent with each call, besides host and user agent.
        hook: called before each call for more headers, such as a token that expires.
        tls: None for connections in the clear.
        compression: of requests, ``"gzip"`` or ``"deflate"``; responses come back likewise.
        keepalive: seconds of silence after which the other side is asked whether it is there.
        http2: who speaks HTTP/2 for gRPC, ``"grpcio"`` or ``"own"``.
        host: what the server is asked for (over gRPC, the authority), if not the address.
        user_agent: what the client calls itself, if not what it does by default.
    """

    address: Address
    headers: Headers = ()
    hook: Callable[[], Mapping[str, str]] | None = None
    tls: TLS | None = None
    compression: str | None = None
    keepalive: float | None = KEEPALIVE
    http2: str = "grpcio"
    host: str = ""
    user_agent: str = ""

    @property
    def authority(self) -> str:
        """What the Host header says, and ``:authority`` in HTTP/2."""
        return self.host or ("localhost" if self.address.unix else self.address.target)

    def call_headers(self, headers: Headers) -> Headers:
        """Return the headers of one call, without the fixed ones."""
        if self.hook is None:
            return headers
        return (*headers, *CALL_HEADERS(self.hook(), "the function given as headers"))

    def metadata(self, headers: Headers) -> Headers:
        """All headers of one call, for gRPC."""
        if self.hook is None and not headers:
            return self.headers
        return self.headers + self.call_headers(headers)


def connection_config(
    address: Address,
    headers: HeaderSource | None,
    tls: TLS | None,
    compression: str | None,
    keepalive: float | None = KEEPALIVE,
    http2: str = "grpcio",
) -> ConnectionConfig:
    """Raise InputError for what makes no sense, alone or together."""
    where = "the client"
    if tls is not None:
        check_instance(TLS, "tls", tls, where)
        if not address.tls:
            message = f"TLS was given for {address}, which has none: use grpcs:// or https://"
            raise InputError(message)
    _COMPRESSION(compression, where)
    _HTTP2(http2, where)
    hook = headers if callable(headers) else None
    named = {} if headers is None or callable(headers) else headers
    fixed = dict(_ALL_HEADERS(named, where))
    return ConnectionConfig(
        address=address,
        hook=hook,
        tls=(tls or TLS()) if address.tls else None,
        compression=compression,
        keepalive=_KEEPALIVE(keepalive, where),
        http2=http2,
        host=fixed.pop("host", ""),
        user_agent=fixed.pop("user-agent", ""),
        headers=tuple(fixed.items()),
    )


def server_name(config: ConnectionConfig) -> str | None:
    """Return the name that the server's certificate must have; None without TLS."""
    return (
        None
        if config.tls is None
        else config.tls.server_name or config.address.name or config.address.host
    )
