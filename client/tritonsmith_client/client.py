"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import EllipsisType, TracebackType
from typing import Any, Protocol

from .address import Address, parse_url
from .clientcore import ClientCore
from .deadline import Deadline
from .errors import TritonError
from .exchange import Action, Exchange, Flow, Sleep, T
from .modelcore import ModelCore
from .options import Options, headers_of
from .retry import Retry
from .values import ModelConfig, ModelMetadata, Parameter, Result, ServerMetadata

__all__ = ["Client", "Model"]


class Transport(Protocol):
    """All the I/O of a client."""

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T: ...
    def close(self) -> None: ...


class Client:
    """A connection to a Triton server. Threads may share it.

        with Client("localhost:8001") as client:
            resnet = client.model("resnet50")
            logits = resnet(image)["logits"]

    Args:
        url: ``host:port`` or ``grpc://``, ``grpcs://``, ``http://``, ``https://``,
            ``grpc+unix:///path``, ``http+unix:///path``.
        timeout: seconds for a whole call, with its retries; None waits for ever.
        headers: sent with each call, e.g. ``{"authorization": "Bearer ..."}``.
        retry: when to send again; ``Retry(attempts=1)`` never does.

    Raises:
        InputError: the URL, the timeout or a header makes no sense. Nothing is sent before the
            first call.
    """

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        timeout: float | None = 60.0,
        headers: Mapping[str, str] | None = None,
        retry: Retry = Retry(),  # noqa: B008  # a frozen value
    ) -> None:
        address = parse_url(url)
        self._core = ClientCore(address, timeout, retry)
        self._transport = _transport(address, headers)

    def model(self, name: str, version: str = "") -> Model:
        """A model, called like a function. Reads its metadata and configuration.

        Args:
            version: a number; empty for the newest one that the server offers.

        Raises:
            NotFoundError: the server has no such model, or it is not loaded.
        """
        deadline = self._core.deadline()
        return Model(self, self._run(self._core.model(name, version, deadline), deadline))

    def live(self) -> bool:
        """Whether the server answers."""
        return self._check(self._core.protocol.live())

    def ready(self) -> bool:
        """Whether the server takes requests."""
        return self._check(self._core.protocol.ready())

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether a model takes requests; False too where there is none of that name."""
        return self._check(self._core.protocol.model_ready(name, version))

    def wait_ready(self, timeout: float = 60.0, models: Sequence[str] = ()) -> None:
        """Waits until the server is ready or, if models are named, until each of them is.

        Raises:
            DeadlineExceededError: it took longer than that many seconds; says what was not ready.
        """
        deadline = self._core.deadline(timeout)
        self._run(self._core.wait_ready(models, deadline), deadline)

    def metadata(self) -> ServerMetadata:
        """The server's name, version and extensions."""
        return self._ask(self._core.protocol.server_metadata())

    def close(self) -> None:
        """Closes the connections; a later call raises ClosedError."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({str(self._core.address)!r})"

    def _check(self, exchange: Exchange[bool]) -> bool:
        return self._run(self._core.check(exchange), self._core.deadline())

    def _ask(self, exchange: Exchange[T]) -> T:
        deadline = self._core.deadline()
        return self._run(self._core.ask(exchange, deadline), deadline)

    def _run(self, flow: Flow[T], deadline: Deadline) -> T:
        """Does what a flow asks for until it returns."""
        try:
            action = next(flow)
            while True:
                try:
                    value = self._do(action, deadline)
                except TritonError as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(value)
        except StopIteration as done:
            result: T = done.value
            return result

    def _do(self, action: Action, deadline: Deadline) -> Any:
        if isinstance(action, Sleep):
            time.sleep(action.seconds)
            return None
        return self._transport.send(action, deadline)


class Model:
    """A model on a server. Call it with numpy arrays; threads may share it.

    model(image)                        by position
    model(input_ids=ids, mask=mask)     by name
    model({"input.1": image})           by name, where the name is no identifier
    model.using(outputs=["logits"], timeout=2.0)(image)
    """

    def __init__(self, client: Client, core: ModelCore, options: Options = Options()) -> None:  # noqa: B008  # a frozen value
        self._client = client
        self._core = core
        self._options = options

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def version(self) -> str:
        """The version that was asked for; empty for the newest."""
        return self._core.version

    @property
    def metadata(self) -> ModelMetadata:
        """Inputs and outputs, as the server described them last."""
        return self._core.signature.metadata

    @property
    def config(self) -> ModelConfig:
        """The configuration, as the server described it last."""
        return self._core.signature.config

    def __call__(self, *args: Any, **named: Any) -> Result:
        """Runs the model.

        Args:
            args: arrays in the order of `metadata.inputs`, or one mapping from name to array.
            named: arrays by name.

        Raises:
            InputError: a name, data type, shape or batch size does not fit; nothing was sent.
            DeadlineExceededError: there was no result in time.
            StatusError: the server refused or failed; its subclasses say how.
        """
        options = self._options
        core = self._client._core
        deadline = core.deadline(options.timeout)
        return self._client._run(self._core.infer(args, named, options, deadline), deadline)

    def using(
        self,
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | EllipsisType | None = ...,
        id: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        priority: int | None = None,
        queue_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Model:
        """The same model with other options; what is left out stays as it is.

        Args:
            outputs: names of the wanted outputs; all if empty.
            timeout: seconds for the whole call, None for no deadline.
            id: comes back in the result.
            parameters: reach the model; bool, int, float or str.
            priority: 1 is the highest, 0 the model's default.
            queue_timeout: seconds that a request may wait in the server's queue.
            headers: HTTP headers or gRPC metadata, besides the client's.

        Raises:
            InputError: a parameter or header has a name or value that cannot be sent.
        """
        given: dict[str, Any] = {
            "outputs": None if outputs is None else tuple(outputs),
            "timeout": None if isinstance(timeout, EllipsisType) else timeout,
            "id": id,
            "parameters": parameters,
            "priority": priority,
            "queue_timeout": queue_timeout,
            "headers": None if headers is None else headers_of(headers),
        }
        changes = {name: value for name, value in given.items() if value is not None}
        if timeout is None:
            changes["timeout"] = None
        options = replace(self._options, **changes)
        options.wire_parameters()
        return Model(self._client, self._core, options)

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.metadata.inputs))
        outputs = ", ".join(map(str, self.metadata.outputs))
        return f"Model('{self.name}': {inputs} -> {outputs})"


def _transport(address: Address, headers: Mapping[str, str] | None) -> Transport:
    if address.protocol == "grpc":
        from .grpctransport import GrpcTransport  # grpcio is not needed for HTTP

        return GrpcTransport(address, headers_of(headers))
    import ssl

    from .httptransport import HttpTransport

    context = ssl.create_default_context() if address.tls else None
    return HttpTransport(address, headers_of(headers), context)
