"""What a scripted HTTP server answers for a model 'm' that returns its input 'x' as 'y'."""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np
from support.wire.scripted import Script, read_request, reset

from tritonsmith_client import (
    ConnectionLostError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ResponseError,
    TritonError,
    UnavailableError,
)

__all__ = ["CONFIG", "FAULTS", "METADATA", "X", "http", "infer_reply", "silent", "then"]

METADATA = {
    "name": "m", "versions": ["1"], "platform": "p",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
}  # fmt: skip
CONFIG = {"name": "m", "max_batch_size": 0}
X = np.arange(4, dtype=np.float32)


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def infer_reply(
    shape: list[int] | None = None, size: int = 16, values: Any = X, **changes: Any
) -> bytes:
    output = {
        "name": "y", "datatype": "FP32", "shape": shape or [4],
        "parameters": {"binary_data_size": size},
    }  # fmt: skip
    head = json.dumps({"model_name": "m", "outputs": [output | changes]}).encode()
    return http(head + values.tobytes(), f"Inference-Header-Content-Length: {len(head)}")


def then(*replies: bytes | Script) -> Script:
    """Answers a model's metadata and configuration, then each request with the next reply."""
    queue: list[bytes | Script] = [http(json.dumps(v).encode()) for v in (METADATA, CONFIG)]
    queue += replies

    def script(connection: socket.socket) -> None:
        for reply in queue:
            read_request(connection)
            if callable(reply):
                reply(connection)
            else:
                connection.sendall(reply)

    return script


def silent(connection: socket.socket) -> None:
    connection.recv(1)  # until the client gives up


# What comes instead of a reply, and the error that says so.
FAULTS: dict[str, tuple[bytes | Script, type[TritonError]]] = {
    "closed before the reply": (lambda c: c.close(), ConnectionLostError),
    "reset before the reply": (reset, ConnectionLostError),
    "closed in the headers": (b"HTTP/1.1 200 OK\r\nContent-Le", ConnectionLostError),
    "closed in the body": (infer_reply()[:-3], ConnectionLostError),
    "closed in a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        ConnectionLostError,
    ),
    "silent": (silent, DeadlineExceededError),
    "no HTTP": (b"hello\r\n\r\n", ResponseError),
    "malformed JSON": (http(b"{"), ResponseError),
    "JSON that is no object": (http(b"[1]"), ResponseError),
    "an empty body": (http(b""), ResponseError),
    "a header length beyond the body": (
        http(b"{}", "Inference-Header-Content-Length: 99"),
        ResponseError,
    ),
    "a header length in words": (http(b"{}", "Inference-Header-Content-Length: x"), ResponseError),
    "a shape for more elements": (infer_reply([5]), ResponseError),
    "a negative shape": (infer_reply([-1]), ResponseError),
    "a size beyond the body": (infer_reply(size=20), ResponseError),
    "a negative size": (infer_reply(size=-4), ResponseError),
    "a size that is no number of elements": (infer_reply(size=15), ResponseError),
    "an unknown data type": (infer_reply(datatype="FP4"), ResponseError),
    "strings that are none": (infer_reply(datatype="BYTES"), ResponseError),
    "a proxy's page": (
        http(b"<html>Bad Gateway</html>", status="502 Bad Gateway"),
        UnavailableError,
    ),
    "an error that is no object": (http(b'"oh"', status="400 Bad Request"), InvalidArgumentError),
    "an error with status 200": (http(b'{"error": "late"}'), InternalError),
    "a redirect": (http(b"", "Location: /x", status="302 Found"), InternalError),
}
