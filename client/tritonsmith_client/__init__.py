"""A thin, fast client for NVIDIA Triton Inference Server.

from tritonsmith_client import Client

with Client("localhost:8001") as client:
    resnet = client.model("resnet50")
    logits = resnet(image)["logits"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .client import Client
from .dtypes import DataType
from .errors import (
    AlreadyExistsError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    CudaError,
    DeadlineExceededError,
    InputError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RequestCancelledError,
    ResourceExhaustedError,
    ResponseError,
    StatusError,
    TritonError,
    UnavailableError,
    UnknownOutputError,
    UnsupportedError,
)
from .link import TLS
from .model import Model, Sequence
from .retry import Retry
from .values import Class, ModelConfig, ModelMetadata, Result, ServerMetadata, TensorMetadata

if TYPE_CHECKING:
    from .admin import Duration, IndexEntry, Metric, ModelStatistics
    from .asyncclient import AsyncClient
    from .asyncmodel import AsyncModel, AsyncSequence
    from .cuda import CudaRegion
    from .regions import RegionStatus, RegionTensor, SystemRegion

__all__ = [
    "TLS",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncModel",
    "AsyncSequence",
    "Class",
    "Client",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "CudaError",
    "CudaRegion",
    "DataType",
    "DeadlineExceededError",
    "Duration",
    "IndexEntry",
    "InputError",
    "InternalError",
    "InvalidArgumentError",
    "Metric",
    "Model",
    "ModelConfig",
    "ModelMetadata",
    "ModelStatistics",
    "NotFoundError",
    "PermissionDeniedError",
    "RegionStatus",
    "RegionTensor",
    "RequestCancelledError",
    "ResourceExhaustedError",
    "ResponseError",
    "Result",
    "Retry",
    "Sequence",
    "ServerMetadata",
    "StatusError",
    "SystemRegion",
    "TensorMetadata",
    "TritonError",
    "UnavailableError",
    "UnknownOutputError",
    "UnsupportedError",
]

_LATE = {  # neither asyncio nor what is rare is imported before somebody asks for it
    "Duration": "admin",
    "IndexEntry": "admin",
    "Metric": "admin",
    "ModelStatistics": "admin",
    "AsyncClient": "asyncclient",
    "AsyncModel": "asyncmodel",
    "AsyncSequence": "asyncmodel",
    "CudaRegion": "cuda",
    "RegionStatus": "regions",
    "RegionTensor": "regions",
    "SystemRegion": "regions",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATE[name]}", __name__), name)
