"""Every error that the client raises on purpose.

    TritonError                       the base: catch this one
    ├── InputError (ValueError)       refused here, before anything was sent
    ├── UnknownOutputError (KeyError) a result has no output of that name
    ├── ClosedError                   the client was used after close()
    ├── CudaError                     the CUDA driver of this machine failed
    ├── ResponseError                 the reply is malformed, or nothing that Triton sends
    ├── DeadlineExceededError (TimeoutError)   DEADLINE_EXCEEDED | 408, 504, or our own clock
    └── StatusError                   the server, or the way to it, answered with an error
        ├── InvalidArgumentError      INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE | 4xx
        ├── NotFoundError             NOT_FOUND | 404, 410
        ├── AlreadyExistsError        ALREADY_EXISTS | 409
        ├── PermissionDeniedError     PERMISSION_DENIED, UNAUTHENTICATED | 401, 403, 407
        ├── ResourceExhaustedError    RESOURCE_EXHAUSTED | 413, 429
        ├── UnsupportedError          UNIMPLEMENTED | 405, 501
        ├── InternalError             INTERNAL, UNKNOWN, ABORTED, DATA_LOSS | other 5xx, 3xx
        ├── RequestCancelledError     CANCELLED | 499
        └── UnavailableError          UNAVAILABLE | 502, 503
            ├── ConnectError (ConnectionError)         no connection: nothing was executed
            └── ConnectionLostError (ConnectionError)  broken later: it may have been executed

The class follows from the status alone, never from the text of a message, but for one case: only
the text of grpcio's UNAVAILABLE tells a connection that was never made from one that broke. A
message says what failed, what was given, what was allowed and what to do next.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "CudaError",
    "DeadlineExceededError",
    "InputError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "RequestCancelledError",
    "ResourceExhaustedError",
    "ResponseError",
    "StatusError",
    "TritonError",
    "UnavailableError",
    "UnknownOutputError",
    "UnsupportedError",
    "from_grpc_status",
    "from_http_status",
]


class TritonError(Exception):
    """Base of all errors of the client."""


class InputError(TritonError, ValueError):
    """An argument was refused before anything was sent.

    Attributes:
        tensor: the input or output at fault, or None.
    """

    def __init__(self, message: str, tensor: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor


class UnknownOutputError(TritonError, KeyError):
    """A result has no output of that name."""

    __str__ = Exception.__str__  # KeyError's would show the repr of the sentence


class ClosedError(TritonError):
    """The client was used after close()."""


class CudaError(TritonError):
    """The CUDA driver of this machine failed."""


class ResponseError(TritonError):
    """The reply is malformed, or nothing that a Triton server sends."""


class DeadlineExceededError(TritonError, TimeoutError):
    """The call took longer than its deadline allowed."""


class StatusError(TritonError):
    """The server, or the way to it, answered with an error.

    Attributes:
        status: what was answered, e.g. ``"INVALID_ARGUMENT"`` or ``"HTTP 400"``; empty where no
            answer came.
        server_message: the server's own words.
    """

    remedy = ""

    def __init__(self, message: str, *, status: str = "", server_message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.server_message = server_message


class InvalidArgumentError(StatusError):
    """The server refused the request as it is: repeating it cannot help."""


class NotFoundError(StatusError):
    """The server has no such model, version or path."""

    remedy = "client.wait_ready(models=[...]) waits for a model that is still loading"


class AlreadyExistsError(StatusError):
    """What should be made exists already."""


class PermissionDeniedError(StatusError):
    """The server does not let this caller do that."""

    remedy = "credentials go in Client(headers={...})"


class ResourceExhaustedError(StatusError):
    """A limit was reached, such as a message size or a quota."""


class UnsupportedError(StatusError):
    """The server cannot do that with this model or in this build."""


class InternalError(StatusError):
    """The server or the model failed while it executed the request."""

    remedy = "the server's log says more"


class RequestCancelledError(StatusError):
    """The request was cancelled."""


class UnavailableError(StatusError):
    """The server cannot take the request now: not there, not ready, or its queue is full."""

    remedy = "client.wait_ready() waits until it can"


class ConnectError(UnavailableError, ConnectionError):
    """No connection, or it broke before the request was complete: nothing was executed."""


class ConnectionLostError(UnavailableError, ConnectionError):
    """The connection broke after the request was sent: it may have been executed."""

    remedy = ""


_BY_GRPC: dict[str, type[StatusError]] = {
    "CANCELLED": RequestCancelledError,
    "UNKNOWN": InternalError,
    "INVALID_ARGUMENT": InvalidArgumentError,
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
_BY_HTTP: dict[int, type[StatusError]] = {
    401: PermissionDeniedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: UnsupportedError,
    407: PermissionDeniedError,
    409: AlreadyExistsError,
    410: NotFoundError,
    413: ResourceExhaustedError,
    429: ResourceExhaustedError,
    499: RequestCancelledError,
    501: UnsupportedError,
    502: UnavailableError,
    503: UnavailableError,
}


def from_grpc_status(code: str, message: str, what: str) -> TritonError:
    """The error for a gRPC status.

    Args:
        code: the name of the status, e.g. ``"NOT_FOUND"``.
        message: the server's words.
        what: what was asked, e.g. ``"inference with model 'resnet50'"``.
    """
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceededError(_sentence(what, code, message, ""))
    return _status_error(_BY_GRPC.get(code, InternalError), what, code, message)


def from_http_status(status: int, message: str, what: str) -> TritonError:
    """The error for an HTTP status that is not 2xx; arguments as in `from_grpc_status`."""
    shown = f"HTTP {status}"
    if status in (408, 504):
        return DeadlineExceededError(_sentence(what, shown, message, ""))
    default = InvalidArgumentError if 400 <= status < 500 else InternalError
    return _status_error(_BY_HTTP.get(status, default), what, shown, message)


def _status_error(kind: type[StatusError], what: str, status: str, message: str) -> StatusError:
    text = _sentence(what, status, message, kind.remedy)
    return kind(text, status=status, server_message=message)


def _sentence(what: str, status: str, message: str, remedy: str) -> str:
    said = message.strip() or "no message"
    return f"{what} failed: {said} ({status})" + (f"; {remedy}" if remedy else "")
