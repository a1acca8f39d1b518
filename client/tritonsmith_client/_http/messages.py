"""HTTP/1.1 messages as values: what is sent, and what came."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._exchange.status import from_http_status
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.headers import Headers
from tritonsmith_client._values.buffers import (
    Buffer,
)
from tritonsmith_client.errors import ResponseError, TritonError

__all__ = ["HttpReply", "RequestWriter", "compressed", "json_of", "route"]


def header_lines(headers: Headers) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def _fixed_headers(config: ConnectionConfig) -> bytes:
    """Return what every request carries. Triton compresses, slowly, unless it is told not to."""
    own = [("host", config.authority), ("accept-encoding", config.compression or "identity")]
    if config.user_agent:
        own.append(("user-agent", config.user_agent))
    return header_lines((*own, *config.headers))


class RequestWriter:
    """Everything that is sent for a request; the first buffer holds all headers."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._fixed = _fixed_headers(config)
        self._rest = self._fixed + b"\r\n"
        self._plain = config.compression is None and config.hook is None

    def __call__(self, exchange: Exchange[Any]) -> list[Buffer]:
        if self._plain and not exchange.headers:
            return [b"".join((exchange.route, self._rest)), *exchange.body]  # type: ignore[arg-type]  # bytes
        config, body = self._config, exchange.body
        route: Any = exchange.route
        if config.compression is not None:
            route, body = compressed(exchange, config.compression)
        headers = header_lines(config.call_headers(exchange.headers))
        return [b"".join((route, self._fixed, headers, b"\r\n")), *body]


@dataclass(slots=True, eq=False)  # made for each call, and a frozen one takes thrice as long
class HttpReply:
    """A complete response.

    Attributes:
        headers: names in lower case.
        body: the caller is its only owner.
        start: the status line and the headers as they came, if the body follows as it is.
    """

    status: int
    headers: Mapping[str, str]
    body: memoryview
    start: bytes = b""

    def text(self) -> str:
        return bytes(self.body).decode("utf-8", "replace")

    def error(self, what: str) -> TritonError | None:
        """Return the error that this reply stands for, if any."""
        if 200 <= self.status < 300:
            return None
        # Where a proxy in between wrote something else, its start may help.
        message = self.said() or " ".join(self.text()[:500].split())
        return from_http_status(self.status, message, what)

    def said(self) -> str:
        """Triton's ``{"error": ...}``; empty for what is something else."""
        try:
            return str(json.loads(bytes(self.body))["error"])
        except (ValueError, KeyError, TypeError):
            return ""


def route(method: str, path: str, headers: str = "", length: int = 0) -> bytes:
    """Return the request line and the headers that belong to the request itself."""
    return f"{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}".encode("ascii")


def json_of(reply: HttpReply, what: str) -> Any:
    """Return the JSON value of a good reply.

    Raises the error that it stands for, or ResponseError.
    """
    error = reply.error(what)
    if error is not None:
        raise error
    try:
        return json.loads(bytes(reply.body)) if reply.body.nbytes else {}
    except ValueError as exc:
        raise ResponseError(f"{what}: the reply is no JSON: {reply.text()[:200]!r}") from exc


def compressed(exchange: Exchange[T], encoding: str) -> tuple[bytes, Sequence[Buffer]]:
    """Route and body of a request whose body is sent as gzip or deflate."""
    assert isinstance(exchange.route, bytes)
    length = sum(map(len, exchange.body))
    if not length:
        return exchange.route, exchange.body
    # deflate over HTTP means the zlib format, and gzip adds 16 to its window.
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
    packed = b"".join([*map(packer.compress, exchange.body), packer.flush()])
    announced = b"Content-Length: %d\r\n" % length
    instead = b"Content-Length: %d\r\nContent-Encoding: %s\r\n" % (len(packed), encoding.encode())
    return exchange.route.replace(announced, instead, 1), (packed,)
