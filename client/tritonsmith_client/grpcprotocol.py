"""The operations over gRPC. Only inference avoids message objects; the rest is rare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .dtypes import from_wire
from .errors import ResponseError
from .exchange import Exchange, InferCall, Prepared, Repeat
from .grpcwire import ResponseReader, read_stream, request_framing
from .protocol import called
from .values import ModelConfig, ModelMetadata, Result, ServerMetadata, TensorMetadata

__all__ = ["GrpcProtocol"]

T = TypeVar("T")
_SERVICE = "/inference.GRPCInferenceService/"


class GrpcProtocol:
    """Builds and reads the messages of ``inference.GRPCInferenceService``."""

    def live(self) -> Exchange[bool]:
        return self._exchange("the liveness check", "ServerLive", {}, lambda m: bool(m.live))

    def ready(self) -> Exchange[bool]:
        return self._exchange("the readiness check", "ServerReady", {}, lambda m: bool(m.ready))

    def server_metadata(self) -> Exchange[ServerMetadata]:
        return self._exchange(
            "reading the server's metadata",
            "ServerMetadata",
            {},
            lambda m: ServerMetadata(m.name, m.version, tuple(m.extensions)),
        )

    def model_ready(self, name: str, version: str) -> Exchange[bool]:
        return self._exchange(
            f"the readiness check of {called(name, version)}",
            "ModelReady",
            {"name": name, "version": version},
            lambda m: bool(m.ready),
        )

    def model_metadata(self, name: str, version: str) -> Exchange[ModelMetadata]:
        return self._exchange(
            f"reading the metadata of {called(name, version)}",
            "ModelMetadata",
            {"name": name, "version": version},
            _metadata,
        )

    def model_config(self, name: str, version: str) -> Exchange[ModelConfig]:
        return self._exchange(
            f"reading the configuration of {called(name, version)}",
            "ModelConfig",
            {"name": name, "version": version},
            lambda m: ModelConfig.from_fields(_plain(m.config)),
        )

    def prepare(self, call: InferCall, repeat: Repeat) -> Prepared:
        what = f"inference with {called(call.model, call.version)}"
        route = _SERVICE + "ModelInfer"
        return Prepared(what, route, request_framing(call), ResponseReader().read, repeat)

    def streamed(self, exchange: Exchange[Result]) -> Exchange[Result | None]:
        def read(data: bytes) -> Result | None:
            return read_stream(data, exchange.parse, exchange.what)

        route = _SERVICE + "ModelStreamInfer"
        what, headers, affinity = exchange.what, exchange.headers, exchange.affinity
        return Exchange(what, route, exchange.body, read, Repeat.NEVER, headers, affinity)

    def _exchange(
        self, what: str, method: str, request: dict[str, Any], parse: Callable[[Any], T]
    ) -> Exchange[T]:
        messages = _messages()
        body = getattr(messages, method + "Request")(**request).SerializeToString()
        reply_type = getattr(messages, method + "Response")

        def read(data: bytes) -> T:
            from google.protobuf.message import DecodeError

            try:
                return parse(reply_type.FromString(data))
            except (DecodeError, KeyError) as exc:
                raise ResponseError(f"{what}: unexpected reply {data[:200]!r}") from exc

        return Exchange(what, _SERVICE + method, (body,), read)


def _messages() -> Any:
    from tritonclient.grpc import service_pb2  # takes 0.2 s: not before it is needed

    return service_pb2


def _metadata(message: Any) -> ModelMetadata:
    def tensors(given: Any) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(t.name, from_wire(t.datatype), tuple(t.shape)) for t in given)

    return ModelMetadata(
        message.name,
        tuple(message.versions),
        message.platform,
        tensors(message.inputs),
        tensors(message.outputs),
    )


def _plain(message: Any) -> dict[str, Any]:
    """A message as plain values, with defaults, as Triton's JSON shows it."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            nested = entry.fields_by_name["value"].message_type is not None
            result[field.name] = {str(k): _plain(v) if nested else v for k, v in value.items()}
        elif entry is not None:
            repeated = field.is_repeated
            result[field.name] = [_plain(v) for v in value] if repeated else _plain(value)
        elif field.enum_type is not None:
            names = field.enum_type.values_by_number
            result[field.name] = (
                [names[v].name for v in value] if field.is_repeated else names[value].name
            )
        else:
            result[field.name] = list(value) if field.is_repeated else value
    return result
