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

The class follows from the status alone, never from the text of a message, but for UNAVAILABLE over
gRPC: grpcio says it of a connection that was never made and of one that broke, and Triton says it
of a restricted protocol, which is 403 over HTTP.

The protocols do not say equally much. Over HTTP Triton answers 400 for ALREADY_EXISTS, CANCELLED
and UNKNOWN too. What fails in the stream of a decoupled model comes without a status, except over
HTTP where the server refuses the request at once: it has the class that the server's own words
have elsewhere (`stream_errors`), and is a plain StatusError where the words are the model's.

A message says what failed, what was given, what was allowed and what to do next.
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
]


class TritonError(Exception):
    """Base of all errors of the client. As text: the message, and the hint if there is one.

    Attributes:
        message: what failed, and why.
        model: the model that was asked, or None.
        tensor: the input or output at fault, or None where none or several are.
        status: what was answered, e.g. ``"INVALID_ARGUMENT"`` or ``"HTTP 400"``; empty where no
            status came.
        server_message: the server's own words; empty where it said none.
        hint: what to do next, if that is known.
    """

    def __init__(
        self,
        message: str = "",
        *,
        model: str | None = None,
        tensor: str | None = None,
        status: str = "",
        server_message: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.model = model
        self.tensor = tensor
        self.status = status
        self.server_message = server_message
        self.hint = hint

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InputError(TritonError, ValueError):
    """An argument was refused before anything was sent."""

    def __init__(
        self,
        message: str = "",
        tensor: str | None = None,
        *,
        model: str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, model=model, tensor=tensor, hint=hint)


class UnknownOutputError(TritonError, KeyError):
    """A result has no output of that name."""


class ClosedError(TritonError):
    """The client was used after close()."""


class CudaError(TritonError):
    """The CUDA driver of this machine failed."""


class ResponseError(TritonError):
    """The reply is malformed, or nothing that a Triton server sends."""


class DeadlineExceededError(TritonError, TimeoutError):
    """The call took longer than its deadline allowed."""


class StatusError(TritonError):
    """The server, or the way to it, answered with an error."""


class InvalidArgumentError(StatusError):
    """The server refused the request as it is: repeating it cannot help."""


class NotFoundError(StatusError):
    """The server has no such model, version or path."""


class AlreadyExistsError(StatusError):
    """What should be made exists already."""


class PermissionDeniedError(StatusError):
    """The server does not let this caller do that."""


class ResourceExhaustedError(StatusError):
    """A limit was reached, such as a message size or a quota."""


class UnsupportedError(StatusError):
    """The server cannot do that with this model or in this build."""


class InternalError(StatusError):
    """The server or the model failed while it executed the request."""


class RequestCancelledError(StatusError):
    """The request was cancelled."""


class UnavailableError(StatusError):
    """The server cannot take the request now: not there, not ready, or its queue is full."""


class ConnectError(UnavailableError, ConnectionError):
    """No connection, or it broke before the request was complete: nothing was executed."""


class ConnectionLostError(UnavailableError, ConnectionError):
    """The connection broke after the request was sent: it may have been executed."""
