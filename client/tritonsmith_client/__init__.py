"""A thin, fast client for NVIDIA Triton Inference Server.

from tritonsmith_client import Client

with Client("localhost:8001") as client:
    resnet = client.model("resnet50")
    logits = resnet(image)["logits"]
"""

from __future__ import annotations

from .client import Client, Model
from .dtypes import DataType
from .errors import (
    AlreadyExistsError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
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
from .retry import Retry
from .values import ModelConfig, ModelMetadata, Result, ServerMetadata, TensorMetadata

__all__ = [
    "AlreadyExistsError",
    "Client",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "DataType",
    "DeadlineExceededError",
    "InputError",
    "InternalError",
    "InvalidArgumentError",
    "Model",
    "ModelConfig",
    "ModelMetadata",
    "NotFoundError",
    "PermissionDeniedError",
    "RequestCancelledError",
    "ResourceExhaustedError",
    "ResponseError",
    "Result",
    "Retry",
    "ServerMetadata",
    "StatusError",
    "TensorMetadata",
    "TritonError",
    "UnavailableError",
    "UnknownOutputError",
    "UnsupportedError",
]
