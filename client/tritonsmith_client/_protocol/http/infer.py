"""KServe v2 over HTTP: request heads and bodies, and what replies mean. No I/O."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tritonsmith_client._exchange.status import from_http_status
from tritonsmith_client._http.messages import HttpReply, route
from tritonsmith_client._protocol.http.reply_template import (
    OutputLayout,
    ReplyLayout,
    ReplyTemplate,
)
from tritonsmith_client._protocol.infer_request import ForeseenSlot, InferCall, RequestedOutput
from tritonsmith_client._values.buffers import (
    Array,
    array_from_wire,
    data_type,
)
from tritonsmith_client._values.metadata import Parameter
from tritonsmith_client._values.result import Result
from tritonsmith_client.dtypes import DataType
from tritonsmith_client.errors import ResponseError

__all__ = ["ResponseReader", "array_from_json", "infer_request"]


def infer_request(path: str, call: InferCall) -> tuple[bytes, bytes]:
    """Return the route and the JSON of an inference request; the inputs' bytes follow the JSON."""
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


class ResponseReader:
    """Reads inference replies; remembers what the last JSON meant. Safe to share by threads."""

    def __init__(self, what: str, shared: frozenset[str], slot: ForeseenSlot) -> None:
        """Read the replies to one request.

        Args:
            shared: the outputs whose bytes are in shared memory.
            slot: gets what the next reply begins with, if it is as the last ones were.
        """
        self._slot = slot
        self._what = what
        self._shared = shared
        self._layout: ReplyLayout | None = None

    def __call__(self, reply: HttpReply) -> Result:
        """Raise the error that the reply stands for, or ResponseError."""
        if reply.status != 200 and (error := reply.error(self._what)) is not None:
            raise error
        body, known = reply.body, self._layout
        length = _header_length(reply, self._what)
        head = bytes(body[:length])
        if known is not None and known.json == head and length + known.size == len(body):
            if reply.start and known.plain:
                self._slot.reply = ReplyTemplate(reply.start, known)
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


def _parse(head: bytes, what: str, shared: frozenset[str]) -> ReplyLayout:
    try:
        reply = json.loads(head)
        if "error" in reply:  # with status 200: Triton's generate extension does that
            raise from_http_status(500, str(reply["error"]), what)
        outputs: list[OutputLayout] = []
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
    return ReplyLayout(head, result, outputs, given, start)


def array_from_json(data: Any, dtype: DataType, shape: tuple[int, ...]) -> Array:
    """Tensors that came as JSON, flat or nested."""
    if dtype.wire == "BYTES":
        flat = np.array(data, dtype=object).ravel().tolist()
        array = np.empty(len(flat), dtype=object)
        array[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in flat]
        return array.reshape(shape)
    return np.array(data, dtype=dtype.numpy).reshape(shape)
