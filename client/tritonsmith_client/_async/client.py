"""The asynchronous client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any

from tritonsmith_client._async.driver import AsyncDriver
from tritonsmith_client._async.model import AsyncModel
from tritonsmith_client._async.transports import async_balanced, async_transport
from tritonsmith_client._core.client import ClientCore, checked_hooks
from tritonsmith_client._core.retries import Retry
from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._net.address import Address, parse_urls
from tritonsmith_client._net.connection_config import (
    KEEPALIVE,
    ConnectionConfig,
    HeaderSource,
    connection_config,
)
from tritonsmith_client._net.deadline import TIMEOUT
from tritonsmith_client._net.tls import TLS
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._sync.transports import transport
from tritonsmith_client._values.metadata import ServerMetadata
from tritonsmith_client.errors import TritonError

if TYPE_CHECKING:
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
    """A connection to a Triton server, for asyncio. Tasks of one event loop may share it.

        async with AsyncClient("localhost:8001") as client:
            resnet = await client.model("resnet50")
            logits = (await resnet(image))["logits"]

    It may be used in one event loop after another, and in one at a time.

    Args:
        url: one server, or several that take turns: ``host:port`` or ``grpc://``, ``grpcs://``,
            ``http://``, ``https://``, ``grpc+unix:///path``, ``http+unix:///path``.
        timeout: seconds for a whole call, with its retries; None waits for ever. Triton before
            release 25.04 may crash when a gRPC call ends early, as its answer is ready: give those
            time enough, or call them over HTTP.
        headers: sent with each call, e.g. ``{"authorization": "Bearer ..."}``, in ASCII; a function
            that returns them is called before each call. ``host`` is the name that the server
            is asked for (over gRPC, the authority), ``user-agent`` what the client is called.
        tls: certificates for ``grpcs://`` and ``https://``; the system's authorities if None.
        compression: ``"gzip"`` or ``"deflate"``, both ways. Slower except over slow networks.
        keepalive: seconds of silence after which a connection is checked; None for never. gRPC
            pings while a call is under way, and servers end connections that do so more often
            than they allow, which for Triton is every 300 s
            (``--grpc-http2-min-recv-ping-interval-without-data``). HTTP, and ``http2="own"``,
            use TCP's keepalive.
        http2: who speaks HTTP/2 for gRPC: ``"grpcio"``, or ``"own"``, which takes small calls half
            the time. Streams go through grpcio either way.
        resolve: look the name up and let all its addresses take turns, as for a headless service.
        shared_memory: ``"auto"`` sends tensors of 64 KiB and more through shared memory where the
            server is on this host and allows it (`--allow-client-shm=true` since release 26.04).
            ``"off"`` where callers of that server must not see each other's tensors: whoever can
            call it can ask it for what lies there.
        retry: when to send again; ``Retry(attempts=1)`` never does.
        workers: has no meaning here, as calls are tasks.
        event_hooks: functions that hear of each attempt at a request, health checks included:
            ``{"request": [f, ...], "response": [g, ...]}``. Each ``f`` is called with a
            `RequestEvent` before it is sent and may add headers, each ``g`` with a
            `ResponseEvent` when it is over, or a stream is. What they raise reaches the
            caller as it is; their time counts as the call's. They may be coroutine functions.

    Raises:
        InputError: one of these makes no sense, or would be dropped. Nothing is sent before the
            first call.
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
        event_hooks: Mapping[str, Iterable[Callable[[Any], object]]] | None = None,
    ) -> None:
        addresses = parse_urls(url)
        hooks = self._hooks = checked_hooks(event_hooks, "AsyncClient")

        def config(address: Address) -> ConnectionConfig:
            return connection_config(address, headers, tls, compression, keepalive, http2)

        self._core = ClientCore(
            addresses,
            resolve,
            timeout,
            retry,
            shared_memory,
            workers,
            lambda: transport(config(addresses[0])),
        )
        self._driver = AsyncDriver(
            async_balanced(
                addresses, resolve, lambda address: async_transport(config(address), hooks)
            ),
            self._core.workers,
        )

    @property
    def event_hooks(self) -> dict[str, list[Callable[[Any], object]]]:
        """The functions given as ``event_hooks``, by event."""
        found = self._hooks or {}
        return {event: list(found.get(event, ())) for event in ("request", "response")}

    async def model(self, name: str, version: str | int = "") -> AsyncModel:
        """Return a model, called like a function. Reads its metadata and configuration.

        Args:
            version: a number, as an int or a str; empty for the newest one that the server offers.

        Raises:
            InputError: the name is empty, or the version no number.
            NotFoundError: the server has no such model, or it is not loaded.
        """
        deadline = self._core.deadline()
        core = await self._driver.run(self._core.model(name, version, deadline), deadline)
        return AsyncModel(self._core, self._driver, core, Options())

    async def live(self) -> bool:
        """Whether the server answers."""
        return await self._check(self._core.protocol.live())

    async def ready(self) -> bool:
        """Whether the server takes requests."""
        return await self._check(self._core.protocol.ready())

    async def model_ready(self, name: str, version: str | int = "") -> bool:
        """Whether a model takes requests; False too where there is none of that name."""
        return await self._check(self._core.model_ready(name, version))

    async def wait_ready(self, timeout: float | None = 60.0, models: Sequence[str] = ()) -> None:
        """Wait until the server is ready or, if models are named, until each of them is.

        Raises:
            DeadlineExceededError: it took longer than that many seconds; says what was not ready.
        """
        deadline = self._core.deadline(TIMEOUT(timeout, "client.wait_ready()"))
        await self._driver.run(self._core.wait_ready(models, deadline), deadline)

    async def metadata(self) -> ServerMetadata:
        """Return the server's name, version and extensions."""
        return await self._ask(self._core.protocol.server_metadata())

    async def statistics(
        self, name: str = "", version: str | int = ""
    ) -> tuple[ModelStatistics, ...]:
        """Return what models did since they were loaded.

        Args:
            name: all models if empty.
            version: all versions if empty.
        """
        return await self._ask(self._core.statistics(name, version))

    async def index(self, ready: bool = False) -> tuple[IndexEntry, ...]:
        """Return the models in the server's repository. Args: ready: only those that are ready."""
        return await self._ask(self._core.index(ready))

    async def load(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout: float | None = 300.0,
    ) -> None:
        """Load a model, or loads it again (servers with ``--model-control-mode=explicit``).

        Args:
            config: a configuration to use instead of the model's own.
            files: contents by path, e.g. ``{"1/model.onnx": ...}``; then a config is needed too.
            timeout: seconds until it gives up; the server goes on loading.
        """
        exchange = self._core.load(name, config, files)
        await self._ask(exchange, TIMEOUT(timeout, "client.load()"))

    async def unload(self, name: str, dependents: bool = False) -> None:
        """Unloads a model. Args: dependents: the members of an ensemble too."""
        await self._ask(self._core.unload(name, dependents))

    async def trace_settings(
        self, model: str = "", changes: Mapping[str, Any] | None = None
    ) -> dict[str, Setting]:
        """Change trace settings of the server or of a model, if any are given; return all of them.

        Args:
            model: the server's own if empty.
            changes: by name, a str or an int, for ``trace_level`` also a list of str; None goes
                back to the server's own setting.

        Raises:
            InvalidArgumentError: the server has no such setting, or did not take a value.
        """
        return await self._ask(self._core.trace_settings(model, changes))

    async def log_settings(self, changes: Mapping[str, Any] | None = None) -> dict[str, Setting]:
        """Return the log settings of the server, after changes to them if any are given.

        Args:
            changes: by name: a bool for ``log_info``, ``log_warning`` and ``log_error``, an int for
                ``log_verbose_level``, a str for ``log_format``.

        Raises:
            InvalidArgumentError: the server has no such setting, or did not take a value.
        """
        return await self._ask(self._core.log_settings(changes))

    async def register(self, region: Region) -> None:
        """Lets the server map a region: a `SystemRegion` or a `CudaRegion`.

        Until `unregister`, or `close`. A server that is started anew has to be told again.

        Raises:
            InputError: the client has several servers.
            StatusError: the server is on another host, or does not allow it.
        """
        deadline = self._core.deadline()
        await self._driver.run(self._core.register(region, deadline), deadline)

    async def unregister(self, region: Region) -> None:
        """Has the server let go of a region."""
        deadline = self._core.deadline()
        await self._driver.run(self._core.unregister(region, deadline), deadline)

    async def memory_status(self) -> tuple[RegionStatus, ...]:
        """Return the regions that the server has registered, whoever made them."""
        deadline = self._core.deadline()
        return await self._driver.run(self._core.memory_status(deadline), deadline)

    async def metrics(self, url: str | None = None) -> tuple[Metric, ...]:
        """Return the samples of the server's Prometheus metrics.

        Args:
            url: where they are; port 8002 of the (first) server if left out.
        """
        from tritonsmith_client._protocol.http.metrics import metrics_exchange

        address = self._core.metrics_address(url)
        driver = AsyncDriver(
            async_transport(connection_config(address, None, None, None), self._hooks), workers=1
        )
        deadline = self._core.deadline()
        flow = self._core.ask(metrics_exchange(address.path), deadline)
        try:
            return await driver.run(flow, deadline)
        finally:
            await driver.close()

    async def close(self) -> None:
        """Close the connections; a later call raises ClosedError."""
        try:
            if self._core.has_regions:
                with contextlib.suppress(TritonError):
                    await self._driver.run(self._core.farewell(), self._core.deadline(_FAREWELL))
        finally:  # a hook may raise anything
            await self._driver.close()

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
        return await self._driver.run(self._core.check(exchange), self._core.deadline())

    async def _ask(self, exchange: Exchange[T], timeout: float | EllipsisType | None = ...) -> T:
        deadline = self._core.deadline(timeout)
        return await self._driver.run(self._core.ask(exchange, deadline), deadline)
