"""The asynchronous client; what `client` says holds here with `await`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any

from tritonsmith_client._async.driver import AsyncRunner
from tritonsmith_client._async.model import AsyncModel
from tritonsmith_client._async.transports import _balanced, _transport
from tritonsmith_client._core.client import ClientCore
from tritonsmith_client._core.retries import Retry
from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._exchange.transport import AsyncTransport
from tritonsmith_client._net.address import Address, parse_urls
from tritonsmith_client._net.connection_config import KEEPALIVE, HeaderSource, make_link
from tritonsmith_client._net.deadline import TIMEOUT
from tritonsmith_client._net.tls import TLS
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._values.metadata import ServerMetadata
from tritonsmith_client.errors import TritonError

if TYPE_CHECKING:
    from tritonsmith_client._exchange.transport import Transport
    from tritonsmith_client._protocol.admin import (
        IndexEntry,
        ModelStatistics,
        RegionStatus,
        Setting,
    )
    from tritonsmith_client._protocol.http.metrics import Metric
    from tritonsmith_client._values.regions import Region

__all__ = ["AsyncClient"]

_FAREWELL = 2.0  # seconds for telling the server to forget shared memory


class AsyncClient:
    """A connection to a Triton server, for asyncio. The same surface as `Client`.

        async with AsyncClient("localhost:8001") as client:
            resnet = await client.model("resnet50")
            logits = (await resnet(image))["logits"]

    It may be used in one event loop after another, and in one at a time. Arguments as for
    `Client`; calls are tasks, and ``workers`` has no meaning here.
    """

    def __init__(
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        timeout: float | None = 60.0,
        headers: HeaderSource | None = None,
        tls: TLS | None = None,
        compression: str | None = None,
        keepalive: float | None = KEEPALIVE,
        http2: str = "grpcio",
        resolve: bool = False,
        shared_memory: str = "auto",
        retry: Retry = Retry(),  # noqa: B008  # a frozen value
        workers: int = 32,
    ) -> None:
        addresses = parse_urls(url)

        def reconnect() -> Transport:
            from tritonsmith_client._sync.transports import transport

            return transport(make_link(addresses[0], headers, tls, compression, keepalive, http2))

        self._core = ClientCore(
            addresses, resolve, timeout, retry, shared_memory, workers, reconnect
        )

        def connect(address: Address) -> AsyncTransport:
            return _transport(make_link(address, headers, tls, compression, keepalive, http2))

        self._runner = AsyncRunner(_balanced(addresses, resolve, connect))

    async def model(self, name: str, version: str | int = "") -> AsyncModel:
        """See `Client.model`."""
        deadline = self._core.deadline()
        core = await self._runner.run(self._core.model(name, version, deadline), deadline)
        return AsyncModel(self._core, self._runner, core, Options())

    async def live(self) -> bool:
        """See `Client.live`."""
        return await self._check(self._core.protocol.live())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self._check(self._core.protocol.ready())

    async def model_ready(self, name: str, version: str | int = "") -> bool:
        """See `Client.model_ready`."""
        return await self._check(self._core.model_ready(name, version))

    async def wait_ready(self, timeout: float | None = 60.0, models: Sequence[str] = ()) -> None:
        """See `Client.wait_ready`."""
        deadline = self._core.deadline(TIMEOUT(timeout, "client.wait_ready()"))
        await self._runner.run(self._core.wait_ready(models, deadline), deadline)

    async def metadata(self) -> ServerMetadata:
        """See `Client.metadata`."""
        return await self._ask(self._core.protocol.server_metadata())

    async def statistics(
        self, name: str = "", version: str | int = ""
    ) -> tuple[ModelStatistics, ...]:
        """See `Client.statistics`."""
        return await self._ask(self._core.statistics(name, version))

    async def index(self, ready: bool = False) -> tuple[IndexEntry, ...]:
        """See `Client.index`."""
        return await self._ask(self._core.index(ready))

    async def load(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout: float | None = 300.0,
    ) -> None:
        """See `Client.load`."""
        exchange = self._core.load(name, config, files)
        await self._ask(exchange, TIMEOUT(timeout, "client.load()"))

    async def unload(self, name: str, dependents: bool = False) -> None:
        """See `Client.unload`."""
        await self._ask(self._core.unload(name, dependents))

    async def trace_settings(
        self, model: str = "", changes: Mapping[str, Any] | None = None
    ) -> dict[str, Setting]:
        """See `Client.trace_settings`."""
        return await self._ask(self._core.trace_settings(model, changes))

    async def log_settings(self, changes: Mapping[str, Any] | None = None) -> dict[str, Setting]:
        """See `Client.log_settings`."""
        return await self._ask(self._core.log_settings(changes))

    async def register(self, region: Region) -> None:
        """See `Client.register`."""
        deadline = self._core.deadline()
        await self._runner.run(self._core.register(region, deadline), deadline)

    async def unregister(self, region: Region) -> None:
        """See `Client.unregister`."""
        deadline = self._core.deadline()
        await self._runner.run(self._core.unregister(region, deadline), deadline)

    async def memory_status(self) -> tuple[RegionStatus, ...]:
        """See `Client.memory_status`."""
        deadline = self._core.deadline()
        return await self._runner.run(self._core.memory_status(deadline), deadline)

    async def metrics(self, url: str | None = None) -> tuple[Metric, ...]:
        """See `Client.metrics`."""
        from tritonsmith_client._protocol.http.metrics import metrics_exchange

        address = self._core.metrics_address(url)
        runner = AsyncRunner(_transport(make_link(address, None, None, None)))
        deadline = self._core.deadline()
        flow = self._core.ask(metrics_exchange(address.path), deadline)
        try:
            return await runner.run(flow, deadline)
        finally:
            await runner.close()

    async def close(self) -> None:
        """See `Client.close`."""
        if self._core.has_regions:
            with contextlib.suppress(TritonError):
                await self._runner.run(self._core.farewell(), self._core.deadline(_FAREWELL))
        await self._runner.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._core.name!r})"

    async def _check(self, exchange: Exchange[bool]) -> bool:
        return await self._runner.run(self._core.check(exchange), self._core.deadline())

    async def _ask(self, exchange: Exchange[T], timeout: float | EllipsisType | None = ...) -> T:
        deadline = self._core.deadline(timeout)
        return await self._runner.run(self._core.ask(exchange, deadline), deadline)
