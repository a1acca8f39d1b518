"""gRPC through grpcio: bytes out, bytes in, statuses mapped to errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._exchange.status import from_grpc_status
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.connection_errors import closed, closed_meanwhile
from tritonsmith_client._net.deadline import CancellableDeadline, Deadline
from tritonsmith_client._net.grpc_channel import channel_options, credentials
from tritonsmith_client._net.headers import Headers
from tritonsmith_client._protocol.grpc.status import mapped
from tritonsmith_client.errors import DeadlineExceededError

__all__ = ["GrpcTransport"]


# glibc gives the end of its heap back to the system where twice its largest block is free there. A
# message, grpcio's copy of it and the reply are three: each call would have its memory mapped anew,
# which takes as long again. While the last message is kept it does not come to that. Messages of
# other sizes (bytes) matter little, or never lie on the heap.
_KEPT = range(1 << 20, 1 << 25)


class GrpcTransport:
    """One channel, made on first use and again in a forked child; threads may share it."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._credentials = credentials(config)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._kept = b""  # see _KEPT
        self._pid = 0
        self._closed = False

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send a request and read its reply within the deadline. Raises TritonError."""
        calls = self._calls
        route: Any = exchange.route
        call = calls.get(route) if self._pid == os.getpid() else None
        if call is None:
            call = self._make_call(route)
        metadata = self._config.metadata(exchange.headers)
        body = b"".join(exchange.body)
        if len(body) in _KEPT:
            self._kept = body
        try:
            if isinstance(deadline, CancellableDeadline):
                reply = _cancellable(call, body, deadline, metadata)
            else:
                reply = call(body, timeout=deadline.left(), metadata=metadata)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except grpc.FutureCancelledError as exc:
            raise from_grpc_status("CANCELLED", "the call was cancelled", exchange.what) from exc
        except grpc.RpcError as exc:
            if self._is_end(exc):
                raise closed_meanwhile() from exc
            raise mapped(exc, exchange.what, deadline) from exc
        except ValueError as exc:
            if self._closed:
                raise closed_meanwhile() from exc
            raise
        return exchange.parse(reply)

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """Yield the replies to one request; the timeout is for each of them. Raises TritonError."""
        metadata = self._config.metadata(exchange.headers)
        with self._lock:
            start = self._open().stream_stream(exchange.route)
        call = start(iter([b"".join(exchange.body)]), metadata=metadata)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            call.cancel()

        try:
            while True:
                timer = threading.Timer(timeout or 0.0, expire)
                if timeout is not None:
                    timer.start()
                try:
                    data = next(call)
                finally:
                    timer.cancel()
                yield exchange.parse(data)
        except StopIteration:
            return
        except grpc.RpcError as exc:
            if expired.is_set():
                raise DeadlineExceededError(
                    f"{exchange.what} failed: no response within {timeout:g} s"
                ) from exc
            if self._is_end(exc):
                raise closed_meanwhile() from exc
            raise mapped(exc, exchange.what) from exc
        finally:
            call.cancel()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            channel, self._channel, self._calls = self._channel, None, {}
            self._kept = b""
        if channel is not None and self._pid == os.getpid():
            channel.close()

    def _make_call(self, route: str) -> Any:
        with self._lock:
            channel = self._open()
            call = self._calls[route] = channel.unary_unary(route)
            return call

    def _open(self) -> Any:
        """Return the channel. grpc-stubs ask for serializers; without them, bytes pass through."""
        if self._closed:
            raise closed("Client")
        if self._channel is None or self._pid != os.getpid():
            self._channel = self._connect()
            self._calls = {}
            self._pid = os.getpid()
        return self._channel

    def _is_end(self, exc: Any) -> bool:
        """Whether a call failed because the client was closed."""
        return self._closed and exc.code() is grpc.StatusCode.CANCELLED

    def _connect(self) -> grpc.Channel:
        config, options = self._config, channel_options(self._config)
        if self._credentials is not None:
            return grpc.secure_channel(config.address.target, self._credentials, options)
        return grpc.insecure_channel(config.address.target, options)


def _cancellable(call: Any, body: bytes, deadline: CancellableDeadline, metadata: Headers) -> bytes:
    future = call.future(body, timeout=deadline.left(), metadata=metadata)
    deadline.on_cancel(future.cancel)
    try:
        reply: bytes = future.result()
        return reply
    finally:
        deadline.on_cancel(None)
