"""The operations over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tritonsmith_client._exchange.exchange import Asked, Exchange, Repeat
from tritonsmith_client._http.messages import HttpReply, route
from tritonsmith_client._protocol.http.admin import HttpAdmin, model_path
from tritonsmith_client._protocol.http.generate import read_event, stream_body
from tritonsmith_client._protocol.http.infer import ResponseReader, infer_request
from tritonsmith_client._protocol.infer_request import ForeseenSlot, InferCall, RequestTemplate
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

__all__ = ["HttpProtocol"]


class HttpProtocol(HttpAdmin):
    """Builds requests to the paths under ``/v2`` and reads their replies."""

    def live(self) -> Exchange[bool]:
        return self._check(Asked("the liveness check"), "/health/live")

    def ready(self) -> Exchange[bool]:
        return self._check(Asked("the readiness check"), "/health/ready")

    def server_metadata(self) -> Exchange[ServerMetadata]:
        return self.read(Asked("reading the server's metadata"), "", _server_metadata)

    def model_ready(self, name: str, version: str) -> Exchange[bool]:
        what = asked("the readiness check of", name, version)
        return self._check(what, model_path(name, version) + "/ready")

    def model_metadata(self, name: str, version: str) -> Exchange[ModelMetadata]:
        what = asked("reading the metadata of", name, version)
        return self.read(what, model_path(name, version), _metadata)

    def model_config(self, name: str, version: str) -> Exchange[ModelConfig]:
        what = asked("reading the configuration of", name, version)
        return self.read(what, model_path(name, version) + "/config", ModelConfig.from_fields)

    def request_template(self, call: InferCall, repeat: Repeat) -> RequestTemplate:
        what = asked("inference with", call.model, call.version)
        path = self._root + model_path(call.model, call.version) + "/infer"
        line, head = infer_request(path, call)
        sizes = [t.size for t in call.inputs if "shared_memory_region" not in t.parameters]
        framing = (head, *[b""] * (len(sizes) - 1))
        slot = ForeseenSlot()
        reader = ResponseReader(what, call.shared_outputs, slot)
        return RequestTemplate(what, line, framing, reader, repeat, slot)

    def streamed(
        self,
        version: str,
        info: ModelInfo,
        arrays: Mapping[str, Array],
        exchange: Exchange[Result],
        options: Options,
    ) -> Exchange[Result | None]:
        """Return the request of Triton's generate extension."""
        what, metadata = exchange.what, info.metadata
        path = self._root + model_path(metadata.name, version) + "/generate_stream"
        body = json.dumps(stream_body(info, arrays, options)).encode()
        line = route("POST", path, "Content-Type: application/json\r\n", len(body))

        def read(reply: HttpReply) -> Result | None:
            return read_event(reply, what, metadata, options)

        headers, affinity = exchange.headers, exchange.affinity
        return Exchange(what, line, (body,), read, Repeat.NEVER, headers, affinity)

    def _check(self, what: Asked, path: str) -> Exchange[bool]:
        def read(reply: HttpReply) -> bool:
            if reply.status in (400, 404):  # how Triton says no
                return False
            error = reply.error(what)
            if error is not None:
                raise error
            return True

        return Exchange(what, route("GET", self._root + path), (), read)


def _server_metadata(value: dict[str, Any]) -> ServerMetadata:
    return ServerMetadata(value["name"], value["version"], tuple(value.get("extensions", ())))


def _metadata(value: dict[str, Any]) -> ModelMetadata:
    def tensors(given: list[dict[str, Any]]) -> tuple[TensorMetadata, ...]:
        return tuple(
            TensorMetadata(t["name"], from_wire(t["datatype"]), tuple(int(a) for a in t["shape"]))
            for t in given
        )

    return ModelMetadata(
        value["name"],
        tuple(str(version) for version in value.get("versions", ())),
        value.get("platform", ""),
        tensors(value["inputs"]),
        tensors(value["outputs"]),
    )
