"""gRPC through grpcio: bytes out, bytes in, statuses mapped to errors."""

from __future__ import annotations

import os
import threading
from typing import Any, TypeVar

import grpc

from .address import Address
from .deadline import Deadline
from .errors import ClosedError, TritonError, from_grpc_status
from .exchange import Exchange, Headers

__all__ = ["GrpcTransport", "channel_options", "mapped"]

T = TypeVar("T")


def channel_options() -> list[tuple[str, Any]]:
    """Unlimited message sizes, and a reconnect that is tried soon rather than after minutes."""
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Otherwise a client inherits another one's broken connection to the same address.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def mapped(exc: grpc.RpcError, what: str) -> TritonError:
    """The error for a failed call, by its status."""
    return from_grpc_status(exc.code().name, exc.details() or "", what)


class GrpcTransport:
    """One channel, made on first use and again in a forked child; threads may share it."""

    def __init__(self, address: Address, headers: Headers) -> None:
        self._address = address
        self._headers = headers
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._pid = 0
        self._closed = False

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Sends a request and reads its reply within the deadline. Raises TritonError."""
        calls = self._calls
        route: Any = exchange.route
        call = calls.get(route) if self._pid == os.getpid() else None
        if call is None:
            call = self._make_call(route)
        metadata = self._headers + exchange.headers
        try:
            reply = call(
                b"".join(exchange.body), timeout=deadline.remaining(), metadata=metadata or None
            )
        except grpc.RpcError as exc:
            raise mapped(exc, exchange.what) from exc
        except ValueError as exc:
            if self._closed:
                raise ClosedError("the client was closed while it was used") from exc
            raise
        return exchange.parse(reply)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None and self._pid == os.getpid():
            channel.close()

    def _make_call(self, route: str) -> Any:
        with self._lock:
            if self._closed:
                raise ClosedError("the client was used after close(): make a new Client")
            if self._channel is None or self._pid != os.getpid():
                self._channel = self._connect()
                self._calls = {}
                self._pid = os.getpid()
            channel: Any = (
                self._channel
            )  # grpc-stubs ask for serializers; without, bytes pass through
            call = self._calls[route] = channel.unary_unary(route)
            return call

    def _connect(self) -> grpc.Channel:
        options = channel_options()
        if self._address.tls:
            credentials = grpc.ssl_channel_credentials()
            return grpc.secure_channel(self._address.target, credentials, options)
        return grpc.insecure_channel(self._address.target, options)
