"""A thin, fast client for NVIDIA Triton Inference Server.

from tritonsmith_client import Client

with Client("localhost:8001") as client:
    resnet = client.model("resnet50")
    logits = resnet(image)["logits"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core.retries import Retry
from ._net.tls import TLS
from ._sync.client import Client
from ._sync.model import Model, Sequence
from ._values.metadata import (
    ModelConfig,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
)
from ._values.result import Class, Result
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
    from ._async.client import AsyncClient
    from ._async.model import AsyncModel, AsyncSequence
    from ._core.event_hooks import RequestEvent, ResponseEvent
    from ._protocol.admin import (
        Duration,
        IndexEntry,
        ModelStatistics,
        RegionStatus,
    )
    from ._protocol.http.metrics import Metric
    from ._shared_memory.cuda import CudaRegion
    from ._shared_memory.system import SystemRegion
    from ._values.regions import RegionTensor

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
    "RequestEvent",
    "ResponseEvent",
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
    "Metric": "_protocol.http.metrics",
    "ModelStatistics": "_protocol.admin",
    "AsyncClient": "_async.client",
    "AsyncModel": "_async.model",
    "AsyncSequence": "_async.model",
    "CudaRegion": "_shared_memory.cuda",
    "RegionStatus": "_protocol.admin",
    "RequestEvent": "_core.event_hooks",
    "ResponseEvent": "_core.event_hooks",
    "RegionTensor": "_values.regions",
    "SystemRegion": "_shared_memory.system",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATE[name]}", __name__), name)
