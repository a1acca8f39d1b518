"""KServe v2 over HTTP: request heads and bodies, and what replies mean. No I/O."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonsmith_client._exchange.exchange import Exchange, InferCall, RequestedOutput, T
from tritonsmith_client._values.buffers import (
    Array,
    Buffer,
    array_at,
    array_from_wire,
    data_type,
    is_little_endian,
)
from tritonsmith_client._values.metadata import Parameter, Result
from tritonsmith_client.dtypes import DataType
from tritonsmith_client.errors import ResponseError, TritonError, from_http_status

__all__ = [
    "Foreseen",
    "HttpReply",
    "ResponseReader",
    "array_from_json",
    "compressed",
    "infer_request",
    "json_of",
    "route",
]


@dataclass(slots=True, eq=False)  # made for each call, and a frozen one takes thrice as long
class HttpReply:
    """A complete response.

    Attributes:
        headers: names in lower case.
        body: the caller is its only owner.
        start: the status line and the headers as they came, if the body follows as it is.
    """

    status: int
    headers: Mapping[str, str]
    body: memoryview
    start: bytes = b""

    def text(self) -> str:
        return bytes(self.body).decode("utf-8", "replace")

    def error(self, what: str) -> TritonError | None:
        """The error that this reply stands for, if any."""
        if 200 <= self.status < 300:
            return None
        # Where a proxy in between wrote something else, its start may help.
        message = self.said() or " ".join(self.text()[:500].split())
        return from_http_status(self.status, message, what)

    def said(self) -> str:
        """Triton's ``{"error": ...}``; empty for what is something else."""
        try:
            return str(json.loads(bytes(self.body))["error"])
        except (ValueError, KeyError, TypeError):
            return ""


def route(method: str, path: str, headers: str = "", length: int = 0) -> bytes:
    """The request line and the headers that belong to the request itself."""
    return f"{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}".encode("ascii")


def json_of(reply: HttpReply, what: str) -> Any:
    """The JSON value of a good reply. Raises the error that it stands for, or ResponseError."""
    error = reply.error(what)
    if error is not None:
        raise error
    try:
        return json.loads(bytes(reply.body)) if reply.body.nbytes else {}
    except ValueError as exc:
        raise ResponseError(f"{what}: the reply is no JSON: {reply.text()[:200]!r}") from exc


def infer_request(path: str, call: InferCall) -> tuple[bytes, bytes]:
    """The route and the JSON of an inference request; the inputs' bytes follow the JSON."""
    request: dict[str, Any] = {}
    if call.id:
        request["id"] = call.id
    request["parameters"] = {"binary_data_output": True, **call.parameters}
    request["inputs"] = [
        {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "parameters": tensor.parameters or {"binary_data_size": tensor.size},
        }
        for tensor in call.inputs
    ]
    if call.outputs:
        request["outputs"] = [
            {"name": output.name, "parameters": _output_parameters(output)}
            for output in call.outputs
        ]
    head = json.dumps(request, separators=(",", ":")).encode()
    in_body = sum(t.size for t in call.inputs if "shared_memory_region" not in t.parameters)
    headers = "Content-Type: application/octet-stream\r\n"
    headers += f"Inference-Header-Content-Length: {len(head)}\r\n"
    return route("POST", path, headers, len(head) + in_body), head


def _output_parameters(output: RequestedOutput) -> dict[str, Parameter]:
    if "shared_memory_region" in output.parameters:
        return dict(output.parameters)
    return {"binary_data": True, **output.parameters}


def compressed(exchange: Exchange[T], encoding: str) -> tuple[bytes, Sequence[Buffer]]:
    """Route and body of a request whose body is sent as gzip or deflate."""
    assert isinstance(exchange.route, bytes)
    length = sum(map(len, exchange.body))
    if not length:
        return exchange.route, exchange.body
    # deflate over HTTP means the zlib format, and gzip adds 16 to its window.
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
    packed = b"".join([*map(packer.compress, exchange.body), packer.flush()])
    announced = b"Content-Length: %d\r\n" % length
    instead = b"Content-Length: %d\r\nContent-Encoding: %s\r\n" % (len(packed), encoding.encode())
    return exchange.route.replace(announced, instead, 1), (packed,)


_Output = tuple[str, DataType, tuple[int, ...], int, int]  # the last two: start and size


@dataclass(frozen=True)
class _Layout:
    """What the JSON of a reply says.

    Attributes:
        outputs: those whose bytes follow the JSON.
        given: those that are in the JSON.
        size: bytes that follow the JSON.
        plain: each output can be an array on memory that begins with the first.
    """

    json: bytes
    result: Result
    outputs: list[_Output]
    given: dict[str, Array]
    size: int

    @property
    def plain(self) -> bool:
        return all(
            size and not start % dtype.numpy.itemsize and is_little_endian(dtype.numpy)
            for _, dtype, _, start, size in self.outputs
        )

    def read(self, body: memoryview) -> Result:
        """A body of this layout, which has been checked."""
        length = len(self.json)
        outputs = {}
        for name, dtype, shape, start, _ in self.outputs:
            outputs[name] = array_at(body, length + start, shape, dtype.numpy)
        return self.result.holding(outputs)


class Foreseen:
    """A reply that came twice in a row, but for the bytes of its tensors: so will the next.

    Attributes:
        start: all that precedes the tensors: status line, headers and JSON.
        size: bytes of the tensors.
    """

    __slots__ = ("_outputs", "_result", "size", "start")

    def __init__(self, start: bytes, layout: _Layout) -> None:
        self.start = start + layout.json
        self.size = layout.size
        self._result = layout.result
        self._outputs = [
            (name, dtype.numpy, shape, at) for name, dtype, shape, at, _ in layout.outputs
        ]

    def result(self, tensors: memoryview) -> Result:
        """Args: tensors: their bytes, aligned, in memory that nobody else holds."""
        outputs: dict[str, Array] = {}
        for name, dtype, shape, start in self._outputs:
            outputs[name] = np.ndarray(shape, dtype, tensors, start)
        return self._result.holding(outputs)


class ResponseReader:
    """Reads inference replies; remembers what the last JSON meant. Safe to share by threads.

    Attributes:
        foreseen: what the next reply begins with, if it is as the last ones were.
    """

    def __init__(self, what: str, shared: frozenset[str] = frozenset()) -> None:
        """Args: shared: the outputs whose bytes are in shared memory."""
        self.foreseen: Foreseen | None = None
        self._what = what
        self._shared = shared
        self._layout: _Layout | None = None

    def __call__(self, reply: HttpReply) -> Result:
        """Raises the error that the reply stands for, or ResponseError."""
        if reply.status != 200 and (error := reply.error(self._what)) is not None:
            raise error
        body, known = reply.body, self._layout
        length = _header_length(reply, self._what)
        head = bytes(body[:length])
        if known is not None and known.json == head and length + known.size == len(body):
            if reply.start and known.plain:
                self.foreseen = Foreseen(reply.start, known)
            return known.read(body)
        layout = _parse(head, self._what, self._shared)
        if length + layout.size != body.nbytes:
            raise ResponseError(
                f"{self._what}: the reply announces {length + layout.size} bytes and has "
                f"{body.nbytes}"
            )
        outputs = dict(layout.given)
        for name, dtype, shape, start, size in layout.outputs:
            outputs[name] = array_from_wire(body, length + start, size, dtype, shape, name)
        if not layout.given and all(dtype.wire != "BYTES" for _, dtype, *_ in layout.outputs):
            self._layout = layout
        return layout.result.holding(outputs)


def _header_length(reply: HttpReply, what: str) -> int:
    text = reply.headers.get("inference-header-content-length")
    if text is None:
        return reply.body.nbytes
    if not text.isdecimal() or len(text) > 18 or int(text) > reply.body.nbytes:
        raise ResponseError(
            f"{what}: Inference-Header-Content-Length is {text!r} in a reply of "
            f"{reply.body.nbytes} bytes"
        )
    return int(text)


def _parse(head: bytes, what: str, shared: frozenset[str]) -> _Layout:
    try:
        reply = json.loads(head)
        if "error" in reply:  # with status 200: Triton's generate extension does that
            raise from_http_status(500, str(reply["error"]), what)
        outputs: list[_Output] = []
        given: dict[str, Array] = {}
        elsewhere: dict[str, tuple[DataType, tuple[int, ...]]] = {}
        start = 0
        for output in reply.get("outputs", ()):
            name, shape = str(output["name"]), tuple(int(axis) for axis in output["shape"])
            dtype = data_type(output["datatype"], name)
            parameters = output.get("parameters") or {}
            if "binary_data_size" in parameters:
                size = int(parameters["binary_data_size"])
                if size < 0:
                    raise ValueError(size)
                outputs.append((name, dtype, shape, start, size))
                start += size
            elif name in shared:
                elsewhere[name] = (dtype, shape)
            else:
                given[name] = array_from_json(output["data"], dtype, shape)
        result = Result(
            {},
            str(reply.get("model_name", "")),
            str(reply.get("model_version", "")),
            str(reply.get("id", "")),
            reply.get("parameters") or {},
            elsewhere,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ResponseError(f"{what}: the reply is malformed: {head[:200]!r}") from exc
    return _Layout(head, result, outputs, given, start)


def array_from_json(data: Any, dtype: DataType, shape: tuple[int, ...]) -> Array:
    """Tensors that came as JSON, flat or nested."""
    if dtype.wire == "BYTES":
        flat = np.array(data, dtype=object).ravel().tolist()
        array = np.empty(len(flat), dtype=object)
        array[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in flat]
        return array.reshape(shape)
    return np.array(data, dtype=dtype.numpy).reshape(shape)
