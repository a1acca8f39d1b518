"""What the client hands out and takes in, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tritonsmith_client.dtypes import DataType

__all__ = [
    "ModelConfig",
    "ModelMetadata",
    "Parameter",
    "ServerMetadata",
    "ModelInfo",
    "TensorMetadata",
]

Parameter = bool | int | float | str


@dataclass(frozen=True)
class ServerMetadata:
    """Name, version and protocol extensions of a server."""

    name: str
    version: str
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorMetadata:
    """One input or output of a model; an axis of -1 takes any length.

    The shape of a model with batching starts with the batch axis.
    """

    name: str
    dtype: DataType
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"'{self.name}' ({self.dtype} {list(self.shape)})"


@dataclass(frozen=True)
class ModelMetadata:
    """What a server says about a model's inputs and outputs."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]

    @cached_property
    def input_by_name(self) -> dict[str, TensorMetadata]:
        return {tensor.name: tensor for tensor in self.inputs}


@dataclass(frozen=True)
class ModelConfig:
    """What the client needs to know from a model's configuration, and all of it in `fields`.

    Attributes:
        max_batch_size: 0 for a model without batching.
        decoupled: a request may have any number of responses; call it with ``stream()``.
        sequence: requests belong to sequences; call it within ``sequence()``.
        optional: the names of inputs that may be left out.
        fields: the whole ``ModelConfig`` message as Triton's JSON has it, in plain values.
    """

    name: str
    backend: str
    max_batch_size: int
    decoupled: bool
    sequence: bool
    optional: frozenset[str]
    fields: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ModelConfig:
        policy = fields.get("model_transaction_policy") or {}
        return cls(
            name=fields.get("name", ""),
            backend=fields.get("backend", ""),
            max_batch_size=int(fields.get("max_batch_size", 0)),
            decoupled=bool(policy.get("decoupled", False)),
            sequence="sequence_batching" in fields,
            optional=frozenset(i["name"] for i in fields.get("input", ()) if i.get("optional")),
            fields=fields,
        )


@dataclass(frozen=True)
class ModelInfo:
    """What the server said about a model; calls are checked against it."""

    metadata: ModelMetadata
    config: ModelConfig
