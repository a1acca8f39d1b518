"""A thin, fast client for NVIDIA Triton Inference Server.

from tritonsmith_client import Client

with Client("localhost:8001") as client:
    resnet = client.model("resnet50")
    logits = resnet(image)["logits"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tritonsmith_client._net.tls import TLS
from tritonsmith_client._values.metadata import (
    ModelConfig,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
)
from tritonsmith_client._values.result import Class, Result

from ._core.retries import Retry
from ._sync.client import Client
from ._sync.model import Model, Sequence
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

if TYPE_CHECKING:
    from tritonsmith_client._protocol.admin import (
        Duration,
        IndexEntry,
        ModelStatistics,
        RegionStatus,
    )
    from tritonsmith_client._protocol.http.metrics import Metric
    from tritonsmith_client._shared_memory.system import SystemRegion
    from tritonsmith_client._values.regions import RegionTensor

    from ._async.client import AsyncClient
    from ._async.model import AsyncModel, AsyncSequence
    from ._shared_memory.cuda import CudaRegion

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
    "Duration": "_protocol.admin",
    "IndexEntry": "_protocol.admin",
    "Metric": "_protocol.admin",
    "ModelStatistics": "_protocol.admin",
    "AsyncClient": "_async.client",
    "AsyncModel": "_async.model",
    "AsyncSequence": "_async.model",
    "CudaRegion": "_shared_memory.cuda",
    "RegionStatus": "_values.regions",
    "RegionTensor": "_values.regions",
    "SystemRegion": "_values.regions",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATE[name]}", __name__), name)
