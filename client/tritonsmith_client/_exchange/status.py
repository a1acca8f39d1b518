"""The error that a status stands for, in gRPC and in HTTP."""

from __future__ import annotations

import re
from typing import TypeVar

from tritonsmith_client.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RequestCancelledError,
    ResourceExhaustedError,
    TritonError,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["E", "from_grpc_status", "from_http_status", "refused", "tensor_in"]


E = TypeVar("E", bound=TritonError)


_RESTRICTED = " is restricted, expecting header "


_NO_ID = "[request id: <id_unknown>] "


_TENSOR = re.compile(r"\b(?:input|output)(?: tensor)? '([^']+)'")


_BY_GRPC: dict[str, type[TritonError]] = {
    "CANCELLED": RequestCancelledError,
    "UNKNOWN": InternalError,
    "INVALID_ARGUMENT": InvalidArgumentError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "FAILED_PRECONDITION": InvalidArgumentError,
    "ABORTED": InternalError,
    "OUT_OF_RANGE": InvalidArgumentError,
    "UNIMPLEMENTED": UnsupportedError,
    "INTERNAL": InternalError,
    "UNAVAILABLE": UnavailableError,
    "DATA_LOSS": InternalError,
    "UNAUTHENTICATED": PermissionDeniedError,
}


_BY_HTTP: dict[int, type[TritonError]] = {
    401: PermissionDeniedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: UnsupportedError,
    407: PermissionDeniedError,
    408: DeadlineExceededError,
    409: AlreadyExistsError,
    410: NotFoundError,
    413: ResourceExhaustedError,
    429: ResourceExhaustedError,
    499: RequestCancelledError,
    501: UnsupportedError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
}


def from_grpc_status(code: str, message: str, what: str) -> TritonError:
    """Return the error for a gRPC status.

    Args:
        code: the name of the status, e.g. ``"NOT_FOUND"``.
        message: the server's words.
        what: what was asked, e.g. ``"inference with model 'resnet50'"``.
    """
    if code == "UNAVAILABLE" and _RESTRICTED in message:
        return refused(PermissionDeniedError, what, code, message)
    return refused(_BY_GRPC.get(code, InternalError), what, code, message)


def from_http_status(status: int, message: str, what: str) -> TritonError:
    """Return the error for an HTTP status that is not 2xx; arguments as in `from_grpc_status`."""
    default = InvalidArgumentError if 400 <= status < 500 else InternalError
    return refused(_BY_HTTP.get(status, default), what, f"HTTP {status}", message)


def refused(kind: type[E], what: str, status: str, message: str) -> E:
    """Get an error that stands for what the server said; the status is empty where it gave none."""
    said = message.strip().removeprefix(_NO_ID).rstrip(";\n ") or "no message"
    text = f"{what} failed: {said}" + (f" ({status})" if status else "")
    return kind(text, tensor=tensor_in(message), status=status, server_message=message)


def tensor_in(text: str) -> str | None:
    """Return the input or output that a text names; None where it names none, or several."""
    named = set(_TENSOR.findall(text))
    return named.pop() if len(named) == 1 else None
