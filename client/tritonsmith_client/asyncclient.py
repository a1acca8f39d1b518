"""The asynchronous client; what `client` says holds here with `await`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from .address import Address, parse_urls
from .asyncmodel import AsyncModel
from .asyncrunner import AsyncRunner, AsyncTransport
from .balance import Balancer
from .clientcore import ClientCore
from .exchange import Exchange, T
from .link import TLS, HeaderSource, Link, make_link
from .options import Options
from .retry import Retry
from .values import ServerMetadata

__all__ = ["AsyncClient"]


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
        resolve: bool = False,
        retry: Retry = Retry(),  # noqa: B008  # a frozen value
        workers: int = 32,
    ) -> None:
        addresses = parse_urls(url)
        self._core = ClientCore(addresses, timeout, retry)

        def connect(address: Address) -> AsyncTransport:
            return _transport(make_link(address, headers, tls, compression))

        self._runner = AsyncRunner(_balanced(addresses, resolve, connect))

    async def model(self, name: str, version: str = "") -> AsyncModel:
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

    async def model_ready(self, name: str, version: str = "") -> bool:
        """See `Client.model_ready`."""
        return await self._check(self._core.protocol.model_ready(name, version))

    async def wait_ready(self, timeout: float = 60.0, models: Sequence[str] = ()) -> None:
        """See `Client.wait_ready`."""
        deadline = self._core.deadline(timeout)
        await self._runner.run(self._core.wait_ready(models, deadline), deadline)

    async def metadata(self) -> ServerMetadata:
        """See `Client.metadata`."""
        return await self._ask(self._core.protocol.server_metadata())

    async def close(self) -> None:
        """See `Client.close`."""
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

    async def _ask(self, exchange: Exchange[T]) -> T:
        deadline = self._core.deadline()
        return await self._runner.run(self._core.ask(exchange, deadline), deadline)


def _balanced(
    addresses: tuple[Address, ...], resolve: bool, connect: Callable[[Address], AsyncTransport]
) -> AsyncTransport:
    first = connect(addresses[0])  # shows at once what is wrong with the settings
    if len(addresses) == 1 and not resolve:
        return first
    from .asyncbalancedtransport import AsyncBalancedTransport

    return AsyncBalancedTransport(Balancer(addresses, resolve), connect)


def _transport(link: Link) -> AsyncTransport:
    if link.address.protocol == "grpc":
        from .asyncgrpctransport import AsyncGrpcTransport  # grpcio is not needed for HTTP

        return AsyncGrpcTransport(link)
    from .asynchttptransport import AsyncHttpTransport

    return AsyncHttpTransport(link)
