"""What either protocol can say: each operation as an `Exchange`. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tritonsmith_client._exchange.exchange import Asked, Exchange, Repeat
from tritonsmith_client._protocol.infer_request import InferCall, RequestTemplate
from tritonsmith_client._values.metadata import ModelConfig, ModelMetadata, ServerMetadata
from tritonsmith_client._values.result import Result

if TYPE_CHECKING:
    from tritonsmith_client._protocol.admin import (
        IndexEntry,
        ModelStatistics,
        RegionStatus,
        Setting,
        TraceChanges,
    )
    from tritonsmith_client._protocol.options import Options
    from tritonsmith_client._values.buffers import Array
    from tritonsmith_client._values.metadata import ModelInfo

__all__ = ["WireProtocol", "asked", "called"]


class WireProtocol(Protocol):
    """The operations of KServe v2 and Triton's extensions."""

    def live(self) -> Exchange[bool]: ...
    def ready(self) -> Exchange[bool]: ...
    def server_metadata(self) -> Exchange[ServerMetadata]: ...
    def model_ready(self, name: str, version: str) -> Exchange[bool]: ...
    def model_metadata(self, name: str, version: str) -> Exchange[ModelMetadata]: ...
    def model_config(self, name: str, version: str) -> Exchange[ModelConfig]: ...
    def statistics(self, name: str, version: str) -> Exchange[tuple[ModelStatistics, ...]]: ...
    def index(self, ready: bool) -> Exchange[tuple[IndexEntry, ...]]: ...
    def load(self, name: str, config: str, files: Mapping[str, bytes]) -> Exchange[None]: ...
    def unload(self, name: str, dependents: bool) -> Exchange[None]: ...
    def trace_settings(self, model: str, changes: TraceChanges) -> Exchange[dict[str, Setting]]: ...
    def log_settings(self, changes: Mapping[str, Any]) -> Exchange[dict[str, Setting]]: ...
    def register_memory(self, name: str, key: str, size: int) -> Exchange[None]: ...
    def register_cuda_memory(
        self, name: str, handle: bytes, device: int, size: int
    ) -> Exchange[None]: ...
    def unregister_memory(self, name: str, kind: str = "system") -> Exchange[None]: ...
    def memory_status(self, kind: str) -> Exchange[tuple[RegionStatus, ...]]: ...
    def streamed(
        self,
        version: str,
        info: ModelInfo,
        arrays: Mapping[str, Array],
        exchange: Exchange[Result],
        options: Options,
    ) -> Exchange[Result | None]: ...
    def request_template(self, call: InferCall, repeat: Repeat) -> RequestTemplate: ...


def asked(what: str, name: str, version: str = "") -> Asked:
    """Return what is asked of a model; of all of them if the name is empty."""
    return Asked(f"{what} {called(name, version)}", name, version=version)


def called(name: str, version: str) -> str:
    """Return a model as messages name it."""
    if not name:
        return "all models"
    return f"model '{name}'" + (f" version {version}" if version else "")
