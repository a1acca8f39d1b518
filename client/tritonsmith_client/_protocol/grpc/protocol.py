"""The operations over gRPC. Only inference avoids message objects; the rest is rare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tritonsmith_client._exchange.exchange import Asked, Exchange, Repeat
from tritonsmith_client._protocol.grpc.admin import SERVICE, GrpcAdmin, plain
from tritonsmith_client._protocol.grpc.infer import ResponseReader, read_stream, request_framing
from tritonsmith_client._protocol.infer_request import InferCall, RequestTemplate
from tritonsmith_client._protocol.protocol import asked
from tritonsmith_client._values.metadata import (
    ModelConfig,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
)
from tritonsmith_client._values.result import Result
from tritonsmith_client.dtypes import from_wire

if TYPE_CHECKING:
    from tritonsmith_client._protocol.options import Options
    from tritonsmith_client._values.buffers import Array
    from tritonsmith_client._values.metadata import ModelInfo

__all__ = ["GrpcProtocol"]


class GrpcProtocol(GrpcAdmin):
    """Builds and reads the messages of ``inference.GRPCInferenceService``."""

    def live(self) -> Exchange[bool]:
        return self.ask(Asked("the liveness check"), "ServerLive", {}, lambda m: bool(m.live))

    def ready(self) -> Exchange[bool]:
        return self.ask(Asked("the readiness check"), "ServerReady", {}, lambda m: bool(m.ready))

    def server_metadata(self) -> Exchange[ServerMetadata]:
        return self.ask(
            Asked("reading the server's metadata"),
            "ServerMetadata",
            {},
            lambda m: ServerMetadata(m.name, m.version, tuple(m.extensions)),
        )

    def model_ready(self, name: str, version: str) -> Exchange[bool]:
        return self.ask(
            asked("the readiness check of", name, version),
            "ModelReady",
            {"name": name, "version": version},
            lambda m: bool(m.ready),
        )

    def model_metadata(self, name: str, version: str) -> Exchange[ModelMetadata]:
        return self.ask(
            asked("reading the metadata of", name, version),
            "ModelMetadata",
            {"name": name, "version": version},
            _metadata,
        )

    def model_config(self, name: str, version: str) -> Exchange[ModelConfig]:
        return self.ask(
            asked("reading the configuration of", name, version),
            "ModelConfig",
            {"name": name, "version": version},
            lambda m: ModelConfig.from_fields(plain(m.config)),
        )

    def request_template(self, call: InferCall, repeat: Repeat) -> RequestTemplate:
        what = asked("inference with", call.model, call.version)
        route = SERVICE + "ModelInfer"
        return RequestTemplate(
            what, route, request_framing(call), ResponseReader(call.shared_outputs).read, repeat
        )

    def streamed(
        self,
        version: str,
        info: ModelInfo,
        arrays: Mapping[str, Array],
        exchange: Exchange[Result],
        options: Options,
    ) -> Exchange[Result | None]:
        """Return the same request, sent over a stream."""

        def read(data: bytes) -> Result | None:
            return read_stream(data, exchange.parse, exchange.what)

        route = SERVICE + "ModelStreamInfer"
        what, headers, affinity = exchange.what, exchange.headers, exchange.affinity
        return Exchange(what, route, exchange.body, read, Repeat.NEVER, headers, affinity)


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
