"""What `Client` and `AsyncClient` share: settings, and the flows that do not belong to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from tritonsmith_client._core.arguments import (
    CONFIG,
    DEPENDENTS,
    FILES,
    MODEL,
    MODELS,
    NAME,
    READY,
    RESOLVE,
    SHARED_MEMORY,
    VERSION,
    WORKERS,
)
from tritonsmith_client._core.model import ModelCore, read_model_info
from tritonsmith_client._core.retries import Retry, attempts
from tritonsmith_client._exchange.exchange import Exchange, Flow, Sleep, T
from tritonsmith_client._net.address import Address, parse_url
from tritonsmith_client._net.deadline import TIMEOUT, Deadline
from tritonsmith_client._protocol.protocol import WireProtocol, called
from tritonsmith_client._shared_memory.transfer import Sharing, possible
from tritonsmith_client._values.argument import check_instance
from tritonsmith_client._values.regions import Region, SystemLocation
from tritonsmith_client.errors import DeadlineExceededError, InputError, UnavailableError

if TYPE_CHECKING:
    from tritonsmith_client._core.event_hooks import Hooks
    from tritonsmith_client._exchange.transport import Transport
    from tritonsmith_client._protocol.admin import (
        IndexEntry,
        ModelStatistics,
        RegionStatus,
        Setting,
    )

__all__ = ["ClientCore", "checked_hooks"]

_ONCE = Retry(attempts=1)


class ClientCore:
    """Everything about a client except its connection.

    Args:
        connect: makes a synchronous one, for what is left to say when nobody closes the client.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        resolve: bool,
        timeout: float | None,
        retry: Retry,
        shared_memory: str,
        workers: int,
        connect: Callable[[], Transport],
    ) -> None:
        where = "the client"
        check_instance(Retry, "retry", retry, where)
        RESOLVE(resolve, where)
        SHARED_MEMORY(shared_memory, where)
        self.workers = WORKERS(workers, where)
        self.timeout = TIMEOUT(timeout, where)
        address = addresses[0]
        self._host = address.host
        self.name = ", ".join(map(str, addresses))
        self.retry = retry
        self.protocol = _protocol(address)

        self._one_server = len(addresses) == 1 and not resolve
        self._regions: dict[str, Region] = {}  # those that the caller registered, by name
        one_host = self._one_server and possible(address)
        self.sharing = None
        if shared_memory == "auto" and one_host:
            self.sharing = Sharing(self.protocol, str(address), connect)

    def budget(self, timeout: float | EllipsisType | None = ...) -> float | None:
        """Seconds for a call; ``...`` stands for the client's own."""
        return self.timeout if isinstance(timeout, EllipsisType) else timeout

    def deadline(self, timeout: float | EllipsisType | None = ...) -> Deadline:
        return Deadline(self.budget(timeout))

    def ask(self, exchange: Exchange[T], deadline: Deadline) -> Flow[T]:
        return attempts(exchange, self.retry, deadline)

    def check(self, exchange: Exchange[bool]) -> Flow[bool]:
        """Return the answer to a health check; a server that cannot be reached is not well."""
        try:
            return (yield from attempts(exchange, _ONCE, Deadline(None)))
        except (UnavailableError, DeadlineExceededError):
            return False

    def farewell(self) -> Flow[None]:
        """Return what there is to say to the server before the connections are closed."""
        if self.sharing is not None:
            yield from self.sharing.close()
        while self._regions:
            name, region = self._regions.popitem()
            yield self.protocol.unregister_memory(name, region.kind)

    @property
    def has_regions(self) -> bool:
        """Whether the server may have memory of this client."""
        return self.sharing is not None or bool(self._regions)

    def register(self, region: Region, deadline: Deadline) -> Flow[None]:
        check_instance(Region, "region", region, "client.register()")
        if not self._one_server:
            raise InputError(
                f"a region is registered with one server, and this client has {self.name}; "
                "make a client for one of them"
            )
        yield from self.ask(_registration(self.protocol, region), deadline)
        if not self._regions:
            from tritonsmith_client._shared_memory.orphans import (
                unregister_abandoned,  # for users of such regions only
            )

            yield from unregister_abandoned(self.protocol)
        self._regions[region.name] = region

    def unregister(self, region: Region, deadline: Deadline) -> Flow[None]:
        check_instance(Region, "region", region, "client.unregister()")
        exchange = self.protocol.unregister_memory(region.name, region.kind)
        yield from self.ask(exchange, deadline)
        self._regions.pop(region.name, None)

    def memory_status(self, deadline: Deadline) -> Flow[tuple[RegionStatus, ...]]:
        found: tuple[RegionStatus, ...] = ()
        for kind in ("system", "cuda"):
            found += yield from self.ask(self.protocol.memory_status(kind), deadline)
        return found

    def model(self, name: str, version: str | int, deadline: Deadline) -> Flow[ModelCore]:
        name, version = _model("model", name, version)
        info = yield from read_model_info(self.protocol, name, version, self.retry, deadline)
        return ModelCore(self.protocol, name, version, self.retry, info, self.sharing)

    def model_ready(self, name: str, version: str | int) -> Exchange[bool]:
        return self.protocol.model_ready(*_model("model_ready", name, version))

    def statistics(self, name: str, version: str | int) -> Exchange[tuple[ModelStatistics, ...]]:
        if name == "" == version:  # of all models
            return self.protocol.statistics("", "")
        return self.protocol.statistics(*_model("statistics", name, version))

    def index(self, ready: bool) -> Exchange[tuple[IndexEntry, ...]]:
        return self.protocol.index(READY(ready, "client.index()"))

    def load(
        self, name: str, config: Mapping[str, Any] | None, files: Mapping[str, bytes] | None
    ) -> Exchange[None]:
        where = "client.load()"
        name = NAME(name, where)
        json, contents = CONFIG(config, where), FILES(files, where)
        if contents and not json:
            raise InputError(
                f"loading model '{name}' from files needs its config too: give config={{...}}"
            )
        return self.protocol.load(name, json, contents)

    def unload(self, name: str, dependents: bool) -> Exchange[None]:
        where = "client.unload()"
        return self.protocol.unload(NAME(name, where), DEPENDENTS(dependents, where))

    def trace_settings(
        self, model: str, changes: Mapping[str, Any] | None
    ) -> Exchange[dict[str, Setting]]:
        from tritonsmith_client._core.server_settings import TRACE_SETTINGS  # rarely asked

        where = "client.trace_settings()"
        return self.protocol.trace_settings(MODEL(model, where), TRACE_SETTINGS(changes, where))

    def log_settings(self, changes: Mapping[str, Any] | None) -> Exchange[dict[str, Setting]]:
        from tritonsmith_client._core.server_settings import LOG_SETTINGS  # rarely asked

        return self.protocol.log_settings(LOG_SETTINGS(changes, "client.log_settings()"))

    def metrics_address(self, url: str | None) -> Address:
        """Where the Prometheus metrics are."""
        if url is None and not self._host:
            raise InputError(
                f"the metrics of {self.name} have an address of their own: give its URL, such as "
                "http://localhost:8002/metrics"
            )
        if url is None:
            return Address("http", False, self._host, 8002)
        address = parse_url(url)
        if address.protocol != "http":
            raise InputError(f"the metrics are served over HTTP, not at {url!r}: use http://")
        return address

    def wait_ready(self, models: Sequence[str], deadline: Deadline) -> Flow[None]:
        """Asks until the server, or each of these models, is ready."""
        names = MODELS(models, "client.wait_ready()")
        waiting: list[tuple[str, Exchange[bool]]] = [
            (called(name, ""), self.protocol.model_ready(name, "")) for name in names
        ] or [("the server", self.protocol.ready())]
        pause = 0.05
        while True:
            reason = ""
            try:
                while waiting and (yield from attempts(waiting[0][1], _ONCE, deadline)):
                    waiting.pop(0)
            except (UnavailableError, DeadlineExceededError) as error:
                reason = error.message
            if not waiting:
                return
            left = deadline.remaining()
            if left is not None and left <= pause:
                still = ", ".join(what for what, _ in waiting)
                text = f"not ready within {deadline.budget:g} s at {self.name}: {still}: "
                model, hint = waiting[0][1].what.model, ""
                if model is not None and not reason:
                    from tritonsmith_client._core.not_found import why  # for calls that failed only

                    reason, hint = yield from why(self.protocol, model, "")
                text += reason or "it says that it is not ready"
                raise DeadlineExceededError(text, model=model, hint=hint)
            yield Sleep(pause)
            pause = min(1.0, pause * 1.5)


def checked_hooks(event_hooks: Any, client: str) -> Hooks | None:
    """Return the hooks of each event, None where there are none; arguments as for `hooks`."""
    if event_hooks is None:
        return None
    from tritonsmith_client._core.event_hooks import hooks  # for those who listen

    found = hooks(event_hooks, client)
    return found if any(found.values()) else None


def _model(method: str, name: str, version: str | int) -> tuple[str, str]:
    """Name and version of a model, for a method of the client."""
    name = NAME(name, f"client.{method}()")
    return name, VERSION(version, model=name)


def _registration(protocol: WireProtocol, region: Region) -> Exchange[None]:
    """Return what tells a server about a region."""
    where = region.location
    if isinstance(where, SystemLocation):
        return protocol.register_memory(region.name, where.key, region.size)
    return protocol.register_cuda_memory(region.name, where.handle, where.device, region.size)


def _protocol(address: Address) -> WireProtocol:
    """Only the one that is used is imported."""
    if address.protocol == "grpc":
        from tritonsmith_client._protocol.grpc.protocol import GrpcProtocol

        return GrpcProtocol()
    from tritonsmith_client._protocol.http.protocol import HttpProtocol

    return HttpProtocol(address.path)
