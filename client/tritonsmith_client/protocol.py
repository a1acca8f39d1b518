"""What either protocol can say: each operation as an `Exchange`. No I/O."""

from __future__ import annotations

from typing import Protocol

from .exchange import Exchange, InferCall, Prepared, Repeat
from .values import ModelConfig, ModelMetadata, Result, ServerMetadata

__all__ = ["WireProtocol", "called"]


class WireProtocol(Protocol):
    """The operations of KServe v2 and Triton's extensions."""

    def live(self) -> Exchange[bool]: ...
    def ready(self) -> Exchange[bool]: ...
    def server_metadata(self) -> Exchange[ServerMetadata]: ...
    def model_ready(self, name: str, version: str) -> Exchange[bool]: ...
    def model_metadata(self, name: str, version: str) -> Exchange[ModelMetadata]: ...
    def model_config(self, name: str, version: str) -> Exchange[ModelConfig]: ...
    def streamed(self, exchange: Exchange[Result]) -> Exchange[Result | None]: ...
    def prepare(self, call: InferCall, repeat: Repeat) -> Prepared: ...


def called(name: str, version: str) -> str:
    """A model as messages name it."""
    return f"model '{name}'" + (f" version {version}" if version else "")
