"""gRPC in HTTP/2: what a unary call sends and what its reply means. No I/O."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from tritonsmith_client._exchange.exchange import Exchange
from tritonsmith_client._exchange.status import from_grpc_status
from tritonsmith_client._http.body import decompressed
from tritonsmith_client._http2.connection import Http2Reply, is_grpc
from tritonsmith_client._http2.hpack import Field
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import InputError, ResponseError, TritonError

__all__ = ["Head", "message_of", "wire_message"]

# By number, as the protocol has them.
_CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
# What a proxy's answer without a gRPC status stands for.
_BY_HTTP_STATUS = {
    "400": "INTERNAL",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED",
    "429": "UNAVAILABLE",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}
_BY_RESET = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}
_LONGEST = (1 << 32) - 1
_MOST_DIGITS = 8
_GRACE = 1000  # milliseconds, so that a client that is late to look yet goes by its own clock


class Head:
    """The headers of all calls over one link."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        accepted = "identity" if config.compression is None else f"identity,{config.compression}"
        own = [
            (":method", "POST"),
            (":scheme", "http" if config.tls is None else "https"),
            (":authority", config.authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", config.user_agent or "tritonsmith-client"),
            ("grpc-accept-encoding", accepted),
        ]
        if config.compression is not None:
            own.append(("grpc-encoding", config.compression))
        self._own = tuple(own)
        self._known: dict[tuple[str, str], tuple[Field, ...]] = {}

    def fields(
        self, exchange: Exchange[Any], deadline: Deadline
    ) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
        """Those that will come again, and the others. Raises TimeoutError when time is over."""
        assert isinstance(exchange.route, str)
        left = deadline.left()
        timeout = "" if left is None else _timeout(left)
        fields = self._known.get((exchange.route, timeout))
        if fields is None:
            fields = ((":path", exchange.route), *self._own)
            if timeout:
                fields = (*fields, ("grpc-timeout", timeout))
            if len(self._known) > 64:
                self._known.clear()
            self._known[exchange.route, timeout] = fields
        return fields, self._config.metadata(exchange.headers)


def wire_message(body: Sequence[Buffer], compression: str | None) -> list[Buffer]:
    """Return a gRPC message: a flag, the length, and the content."""
    if compression is not None:
        wbits = zlib.MAX_WBITS | (16 if compression == "gzip" else 0)
        packer = zlib.compressobj(wbits=wbits)
        body = [b"".join([*map(packer.compress, body), packer.flush()])]
    length = sum(map(len, body))
    if length > _LONGEST:
        raise InputError(f"the request has {length} bytes; gRPC takes at most {_LONGEST}")
    prefix = bytes((compression is not None,)) + length.to_bytes(4, "big")
    return [prefix + body[0], *body[1:]] if body else [prefix]


def message_of(reply: Http2Reply, what: str) -> bytes | memoryview:
    """Return the message of a good reply.

    Raises the error that the reply stands for, or ResponseError.
    """
    if reply.refused:
        raise from_grpc_status("UNAVAILABLE", "the server is going away", what)
    if reply.reset is not None:
        status = _BY_RESET.get(reply.reset, "INTERNAL")
        raise from_grpc_status(status, f"the server reset the stream ({reply.reset})", what)
    if not is_grpc(reply.headers):
        raise _foreign(reply, what)
    text = reply.trailers.get("grpc-status")
    if text is None:
        raise ResponseError(f"{what} failed: the reply has no gRPC status")
    status = _CODES[int(text)] if text.isdecimal() and int(text) < len(_CODES) else "UNKNOWN"
    if status != "OK":
        raise from_grpc_status(status, unquote(reply.trailers.get("grpc-message", "")), what)
    message = reply.message
    if message.content is None or not message.complete:
        raise ResponseError(f"{what} failed: the reply has no message, or is cut off")
    if not message.compressed:
        return message.content
    encoding = reply.headers.get("grpc-encoding", "identity")
    if encoding == "identity":
        raise ResponseError(f"{what} failed: the reply is compressed and does not say how")
    return decompressed(message.content, encoding)


def _foreign(reply: Http2Reply, what: str) -> TritonError:
    """Return the error for what is no gRPC reply."""
    http = reply.headers.get(":status", "")
    if http != "200":
        status = _BY_HTTP_STATUS.get(http, "UNKNOWN")
        return from_grpc_status(status, f"HTTP status {http[:3] or 'missing'}", what)
    kind = reply.headers.get("content-type", "")
    return ResponseError(f"{what} failed: the reply is no gRPC but {kind[:60]!r}")


def _timeout(seconds: float) -> str:
    """Round the seconds up to two digits, so that headers repeat.

    The server's clock ends later than the client's own, which is exact and knows the deadline.
    """
    number, unit = math.ceil(seconds * 1000) + _GRACE, "m"
    if number >= 10**_MOST_DIGITS:
        number, unit = min(math.ceil(seconds), 10**_MOST_DIGITS - 1), "S"
    step = 10 ** max(0, len(str(number)) - 2)
    rounded = -(-number // step) * step
    return f"{min(rounded, 10**_MOST_DIGITS - 1)}{unit}"
