"""gRPC through grpc.aio: what `_sync.grpc` does in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._net.connection_config import ConnectionConfig
from tritonsmith_client._net.connection_errors import closed, closed_meanwhile
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.grpc_channel import channel_options, credentials
from tritonsmith_client._net.headers import Headers
from tritonsmith_client._protocol.grpc.status import mapped
from tritonsmith_client.errors import DeadlineExceededError

__all__ = ["AsyncGrpcTransport"]

_aio: Any = grpc.aio  # grpc-stubs know nothing of EOF
_END = _aio.EOF


class AsyncGrpcTransport:
    """One channel for each event loop that it is used in, one after the other."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._credentials = credentials(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Any = None
        self._calls: dict[Any, Any] = {}
        self._closed = False

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send a request and read its reply within the deadline. Raises TritonError."""
        channel = self._open()
        call = self._calls.get(exchange.route)
        if call is None:
            call = self._calls[exchange.route] = channel.unary_unary(exchange.route)
        metadata = self._metadata(exchange)
        try:
            reply = await call(b"".join(exchange.body), timeout=deadline.left(), metadata=metadata)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"{exchange.what} failed: {deadline} exceeded") from exc
        except grpc.RpcError as exc:
            raise mapped(exc, exchange.what, deadline) from exc
        except asyncio.CancelledError as exc:
            if self._closed and not _is_cancelled():
                raise closed_meanwhile() from exc
            raise
        return exchange.parse(reply)

    async def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """Yield the replies to one request; the timeout is for each of them. Raises TritonError."""
        start = self._open().stream_stream(exchange.route)
        call = start(iter([b"".join(exchange.body)]), metadata=self._metadata(exchange))
        try:
            while True:
                data = await asyncio.wait_for(call.read(), timeout)
                if data is _END:
                    return
                yield exchange.parse(data)
        except asyncio.TimeoutError as exc:
            raise DeadlineExceededError(
                f"{exchange.what} failed: no response within {timeout:g} s"
            ) from exc
        except grpc.RpcError as exc:
            raise mapped(exc, exchange.what) from exc
        except asyncio.CancelledError as exc:
            if self._closed and not _is_cancelled():
                raise closed_meanwhile() from exc
            raise
        finally:
            call.cancel()

    async def close(self) -> None:
        self._closed = True
        channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None and self._loop is asyncio.get_running_loop():
            await channel.close()

    def _open(self) -> Any:
        """Return the channel. grpc-stubs ask for serializers; without them, bytes pass through."""
        if self._closed:
            raise closed("AsyncClient")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._channel, self._calls = loop, self._connect(), {}
        return self._channel

    def _connect(self) -> Any:
        config, options = self._config, channel_options(self._config)
        if self._credentials is not None:
            return grpc.aio.secure_channel(config.address.target, self._credentials, options)
        return grpc.aio.insecure_channel(config.address.target, options)

    def _metadata(self, exchange: Exchange[Any]) -> Headers:
        return self._config.metadata(exchange.headers)


def _is_cancelled() -> bool:
    """Whether somebody asked the current task to end (known from Python 3.11 on)."""
    task: Any = asyncio.current_task()
    return task is not None and bool(getattr(task, "cancelling", lambda: 1)())
