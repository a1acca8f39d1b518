"""A client without a server, for the tests of programs that use this package.

    def doubled(inputs):
        return {"y": inputs["x"] * 2}

    server = FakeServer()
    server.add("double", inputs={"x": ("FP32", [-1])}, outputs={"y": ("FP32", [-1])}, run=doubled)
    with server.client() as client:
        assert client.model("double")(np.ones(3, np.float32))["y"].sum() == 6

What a real server would check is checked by the client itself, so the fake only runs functions.
`fail` makes the next calls fail, to test what a program does then.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from tritonsmith_client._async.client import AsyncClient
from tritonsmith_client._async.transports import async_hooked
from tritonsmith_client._exchange.exchange import Exchange, T
from tritonsmith_client._net.address import parse_url
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._sync.client import Client
from tritonsmith_client._sync.transports import hooked
from tritonsmith_client._values.buffers import Array, array_from_wire, wire_buffer
from tritonsmith_client.dtypes import from_numpy, from_wire
from tritonsmith_client.errors import (
    AlreadyExistsError,
    ClosedError,
    NotFoundError,
    TritonError,
    UnsupportedError,
)

__all__ = ["FakeServer", "Run"]

Run = Callable[[Mapping[str, Array]], Mapping[str, Array] | Sequence[Mapping[str, Array]]]
_ADDRESS = parse_url("grpc://fake")
_Tensors = Mapping[str, tuple[str, Sequence[int]]]


@dataclass(frozen=True)
class _Model:
    inputs: _Tensors
    outputs: _Tensors
    fields: Mapping[str, Any]
    run: Run


class FakeServer:
    """Models that are Python functions. Clients of it may be used like any other.

    Attributes:
        calls: the model's name and the inputs of each inference so far.
    """

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._failures: deque[TritonError] = deque()
        self._regions: dict[str, dict[str, Any]] = {"System": {}, "Cuda": {}}
        self._lock = threading.Lock()
        self.calls: list[tuple[str, Mapping[str, Array]]] = []

    def add(
        self,
        name: str,
        *,
        inputs: _Tensors,
        outputs: _Tensors,
        run: Run,
        max_batch_size: int = 0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a model, or replaces one.

        Args:
            inputs, outputs: data type on the wire and shape by name, with the batch axis if the
                model has one; -1 for an axis of any length.
            run: takes the inputs by name and returns the outputs by name, or a list of them for
                a model that is streamed.
            config: more fields of the model's configuration.
        """
        fields = {"name": name, "max_batch_size": max_batch_size, **(config or {})}
        self._models[name] = _Model(inputs, outputs, fields, run)

    def fail(self, error: TritonError, times: int = 1) -> None:
        """Make the next requests fail with this error, whatever they ask for."""
        self._failures.extend([error] * times)

    def client(self, **options: Any) -> Client:
        """Return a client of this server. Args: options: as for `Client`, except for the URL."""
        client = Client(str(_ADDRESS), **options)
        client._driver.transport = hooked(_Transport(self), client._hooks, _ADDRESS)
        return client

    def async_client(self, **options: Any) -> AsyncClient:
        """Return an asynchronous client of this server. Args: as for `client`."""
        client = AsyncClient(str(_ADDRESS), **options)
        client._driver.transport = async_hooked(_AsyncTransport(self), client._hooks, _ADDRESS)
        return client

    def answer(self, exchange: Exchange[Any]) -> Iterator[bytes]:
        """Yield the messages that a server would answer with. Raises TritonError."""
        if self._failures:
            raise copy.copy(self._failures.popleft())  # what it is told of differs each time
        assert isinstance(exchange.route, str)
        method = exchange.route.rpartition("/")[2]
        kind, memory, verb = method.partition("SharedMemory")
        if memory:
            request = getattr(service_pb2, method + "Request").FromString(b"".join(exchange.body))
            yield self._memory(kind, verb, request).SerializeToString()
            return
        respond = getattr(self, "_" + method, None)
        if respond is None:
            raise UnsupportedError(f"{exchange.what} failed: the fake server has no {method}")
        kind = "ModelInfer" if method == "ModelStreamInfer" else method
        request = getattr(service_pb2, kind + "Request").FromString(b"".join(exchange.body))
        for response in respond(request):
            yield response.SerializeToString()

    def _ServerLive(self, request: Any) -> Iterator[Any]:  # noqa: N802  # the method's own name
        yield service_pb2.ServerLiveResponse(live=True)

    def _ServerReady(self, request: Any) -> Iterator[Any]:  # noqa: N802
        yield service_pb2.ServerReadyResponse(ready=True)

    def _ServerMetadata(self, request: Any) -> Iterator[Any]:  # noqa: N802
        yield service_pb2.ServerMetadataResponse(name="fake", version="0")

    def _ModelReady(self, request: Any) -> Iterator[Any]:  # noqa: N802
        yield service_pb2.ModelReadyResponse(ready=request.name in self._models)

    def _ModelMetadata(self, request: Any) -> Iterator[Any]:  # noqa: N802
        model = self._model(request.name)
        response = service_pb2.ModelMetadataResponse(
            name=request.name, versions=["1"], platform="fake"
        )
        for field, tensors in ((response.inputs, model.inputs), (response.outputs, model.outputs)):
            for name, (datatype, shape) in tensors.items():
                field.add(name=name, datatype=datatype, shape=shape)
        yield response

    def _ModelConfig(self, request: Any) -> Iterator[Any]:  # noqa: N802
        fields = self._model(request.name).fields
        yield json_format.ParseDict({"config": fields}, service_pb2.ModelConfigResponse())

    def _ModelInfer(self, request: Any) -> Iterator[Any]:  # noqa: N802
        return self._run(request)  # a call takes the first one, a stream all of them

    def _ModelStreamInfer(self, request: Any) -> Iterator[Any]:  # noqa: N802
        for response in self._run(request):
            yield service_pb2.ModelStreamInferResponse(infer_response=response)

    def _memory(self, kind: str, verb: str, request: Any) -> Any:
        """Return registered regions are remembered; what lies in them is not looked at."""
        regions = self._regions[kind]
        if verb == "Register":
            if request.name in regions:
                message = f"the region '{request.name}' is registered already"
                raise AlreadyExistsError(message, status="ALREADY_EXISTS")
            said = json_format.MessageToDict(request, preserving_proto_field_name=True)
            regions[request.name] = {k: v for k, v in said.items() if k != "raw_handle"}
        elif verb == "Unregister":
            for name in [request.name] if request.name else list(regions):
                regions.pop(name, None)
        elif verb == "Status":
            return json_format.ParseDict(
                {"regions": regions}, getattr(service_pb2, f"{kind}SharedMemoryStatusResponse")()
            )
        return getattr(service_pb2, f"{kind}SharedMemory{verb}Response")()

    def _run(self, request: Any) -> Iterator[Any]:
        model = self._model(request.model_name)
        contents = iter(request.raw_input_contents)
        inputs = {
            t.name: array_from_wire(
                raw := next(contents), 0, len(raw), from_wire(t.datatype), tuple(t.shape), t.name
            )
            for t in request.inputs
        }
        with self._lock:
            self.calls.append((request.model_name, inputs))
        made = model.run(inputs)
        wanted = [output.name for output in request.outputs]
        for outputs in [made] if isinstance(made, Mapping) else made:
            response = service_pb2.ModelInferResponse(
                model_name=request.model_name, model_version="1", id=request.id
            )
            for name, array in outputs.items():
                if not wanted or name in wanted:
                    _add_output(response, name, np.asarray(array))
            yield response

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            raise NotFoundError(f"the fake server has no model '{name}'", status="NOT_FOUND")
        return self._models[name]


def _add_output(response: Any, name: str, array: Array) -> None:
    dtype = from_numpy(array.dtype)
    response.outputs.add(name=name, datatype=dtype.wire, shape=array.shape)
    response.raw_output_contents.append(bytes(wire_buffer(array, dtype, name)[0]))


class _Transport:
    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._closed = False

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        return next(self.stream(exchange, None))

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        if self._closed:
            raise ClosedError("the client was used after close()")
        return (exchange.parse(data) for data in self._server.answer(exchange))

    def close(self) -> None:
        self._closed = True


class _AsyncTransport:
    def __init__(self, server: FakeServer) -> None:
        self._inner = _Transport(server)

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        await asyncio.sleep(0)  # other tasks run meanwhile, as they would
        return self._inner.send(exchange, deadline)

    async def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        for part in self._inner.stream(exchange, timeout):
            await asyncio.sleep(0)
            yield part

    async def close(self) -> None:
        self._inner.close()
