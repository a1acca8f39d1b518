"""The errors of grpcio as ours, by status."""

from __future__ import annotations

import re

import grpc

from tritonsmith_client._exchange.status import from_grpc_status
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    TritonError,
)

__all__ = ["mapped"]


_NOT_REACHED = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")


_EXPIRED = re.compile(r"(.* \()?Deadline Exceeded\)?")  # whoever of both sides noticed it first


_BROKEN = re.compile(
    "Stream removed|Socket closed|[Cc]onnection reset|Broken pipe|recvmsg|sendmsg|"
    "Transport closed|Endpoint |[Kk]eepalive|[Pp]ing timeout"
)


def mapped(exc: grpc.RpcError, what: str, deadline: Deadline | None = None) -> TritonError:
    """Return the error for a failed call, by its status. Args: deadline: the call's, if it has one.

    UNAVAILABLE is what the server says and also what grpcio says itself, of a server that it did
    not reach and of a connection that broke. Only the words tell these apart.
    """
    status, message = exc.code().name, exc.details() or ""
    if status == "UNAVAILABLE" and message.startswith(_NOT_REACHED):
        return ConnectError(f"{what} failed: {message}", status=status)
    if status == "UNAVAILABLE" and _BROKEN.search(message):
        said = f"{what} failed: the connection broke ({message}); the server may have executed it"
        return ConnectionLostError(said, status=status)
    if status == "DEADLINE_EXCEEDED" and deadline is not None and _EXPIRED.fullmatch(message):
        return DeadlineExceededError(f"{what} failed: {deadline} exceeded", status=status)
    return from_grpc_status(status, message, what)
