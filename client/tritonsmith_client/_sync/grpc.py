"""gRPC through grpcio: bytes out, bytes in, statuses mapped to errors."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import grpc

from tritonsmith_client._exchange.exchange import Exchange, Headers
from tritonsmith_client._net.connection_config import Link
from tritonsmith_client._net.deadline import CancellableDeadline, Deadline
from tritonsmith_client.errors import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    TritonError,
    from_grpc_status,
)

__all__ = ["GrpcTransport", "channel_options", "credentials", "mapped"]

T = TypeVar("T")

# glibc gives the end of its heap back to the system where twice its largest block is free there. A
# message, grpcio's copy of it and the reply are three: each call would have its memory mapped anew,
# which takes as long again. While the last message is kept it does not come to that. Messages of
# other sizes (bytes) matter little, or never lie on the heap.
_KEPT = range(1 << 20, 1 << 25)
_NOT_REACHED = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")
_EXPIRED = re.compile(r"(.* \()?Deadline Exceeded\)?")  # whoever of both sides noticed it first
_BROKEN = re.compile(
    "Stream removed|Socket closed|[Cc]onnection reset|Broken pipe|recvmsg|sendmsg|"
    "Transport closed|Endpoint |[Kk]eepalive|[Pp]ing timeout"
)


def channel_options(link: Link) -> list[tuple[str, Any]]:
    """Unlimited message sizes, and a reconnect that is tried soon rather than after minutes."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Otherwise a client inherits another one's broken connection to the same address.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if link.keepalive is not None:
        options += [
            ("grpc.keepalive_time_ms", int(link.keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.max_pings_without_data", 0),  # during one long call as well
        ]
    if link.compression is None:
        # Leaves out what calls like these do not need: 5 % of a small call's time.
        options.append(("grpc.minimal_stack", 1))
    else:
        kinds = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
        options.append(("grpc.default_compression_algorithm", int(kinds[link.compression])))
    if link.host:
        options.append(("grpc.default_authority", link.host))
    if link.user_agent:
        options.append(("grpc.primary_user_agent", link.user_agent))  # stands before grpcio's own
    if link.tls is not None and (name := link.tls.server_name or link.address.name):
        options.append(("grpc.ssl_target_name_override", name))
    return options


def credentials(link: Link) -> Any:
    """The channel's credentials; None in the clear. Raises InputError."""
    return None if link.tls is None else grpc.ssl_channel_credentials(*link.tls.pem())


def mapped(exc: grpc.RpcError, what: str, deadline: Deadline | None = None) -> TritonError:
    """The error for a failed call, by its status. Args: deadline: the call's, if it has one.

    UNAVAILABLE is what the server says and also what grpcio says itself, of a server that it did
    not reach and of a connection that broke. Only the words tell these apart.
    """
    status, message = exc.code().name, exc.details() or ""
    if status == "UNAVAILABLE" and message.startswith(_NOT_REACHED):
        return ConnectError(f"{what} failed: {message}", status=status)
    if status == "UNAVAILABLE" and _BROKEN.search(message):
        said = f"{what} failed: the connection broke ({message}); the server may have executed it"
        return ConnectionLostError(said, status=status)
    if status == "DEADLINE_EXCEEDED" and deadline is not None and _EXPIRED.fullmatch(message):
        return DeadlineExceededError(f"{what} failed: {deadline} exceeded", status=status)
    return from_grpc_status(status, message, what)


class GrpcTransport:
    """One channel, made on first use and again in a forked child; threads may share it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._credentials = credentials(link)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._kept = b""  # see _KEPT
        self._pid = 0
        self._closed = False

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Sends a request and reads its reply within the deadline. Raises TritonError."""
        calls = self._calls
        route: Any = exchange.route
        call = calls.get(route) if self._pid == os.getpid() else None
        if call is None:
            call = self._make_call(route)
        metadata = self._link.metadata(exchange.headers)
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
            raise mapped(exc, exchange.what, deadline) from exc
        except ValueError as exc:
            if self._closed:
                raise ClosedError("the client was closed while it was used") from exc
            raise
        return exchange.parse(reply)

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """The replies to one request; the timeout is for each of them. Raises TritonError."""
        metadata = self._link.metadata(exchange.headers)
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
        """The channel. grpc-stubs ask for serializers; without them, bytes pass through."""
        if self._closed:
            raise ClosedError("the client was used after close(): make a new Client")
        if self._channel is None or self._pid != os.getpid():
            self._channel = self._connect()
            self._calls = {}
            self._pid = os.getpid()
        return self._channel

    def _connect(self) -> grpc.Channel:
        link, options = self._link, channel_options(self._link)
        if self._credentials is not None:
            return grpc.secure_channel(link.address.target, self._credentials, options)
        return grpc.insecure_channel(link.address.target, options)


def _cancellable(call: Any, body: bytes, deadline: CancellableDeadline, metadata: Headers) -> bytes:
    future = call.future(body, timeout=deadline.left(), metadata=metadata)
    deadline.on_cancel(future.cancel)
    try:
        reply: bytes = future.result()
        return reply
    finally:
        deadline.on_cancel(None)
