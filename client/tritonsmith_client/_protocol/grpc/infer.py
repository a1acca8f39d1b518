"""ModelInfer over gRPC: request bytes by hand, response bytes read in place, no message objects."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tritonsmith_client._protocol.grpc import protobuf
from tritonsmith_client._protocol.grpc.protobuf import length_delimited, varint
from tritonsmith_client._protocol.infer_request import InferCall
from tritonsmith_client._values.buffers import Array, array_at, array_from_wire, data_type
from tritonsmith_client._values.metadata import Parameter
from tritonsmith_client._values.result import Result
from tritonsmith_client.dtypes import DataType
from tritonsmith_client.errors import ResponseError

__all__ = ["ResponseReader", "parameters_from_wire", "read_stream", "request_framing"]

_RAW_INPUT = varint(7 << 3 | 2)
_INT64_MAX = (1 << 63) - 1


def request_framing(call: InferCall) -> tuple[bytes, ...]:
    """Return what precedes each input's bytes in a ModelInferRequest.

    The message is ``framing[0] + data[0] + framing[1] + data[1] ...``; inputs in shared memory
    have no data and come after those that have. Fields stand in the order of their numbers.
    """
    head = [length_delimited(1, call.model.encode())]
    if call.version:
        head.append(length_delimited(2, call.version.encode()))
    if call.id:
        head.append(length_delimited(3, call.id.encode()))
    head += _parameters(4, call.parameters)
    for tensor in call.inputs:
        meta = length_delimited(1, tensor.name.encode())
        meta += length_delimited(2, tensor.datatype.encode())
        if tensor.shape:
            meta += length_delimited(3, b"".join(map(varint, tensor.shape)))
        meta += b"".join(_parameters(4, tensor.parameters))
        head.append(length_delimited(5, meta))
    for output in call.outputs:
        meta = length_delimited(1, output.name.encode())
        meta += b"".join(_parameters(2, output.parameters))
        head.append(length_delimited(6, meta))
    sizes = [t.size for t in call.inputs if "shared_memory_region" not in t.parameters]
    raw = [_RAW_INPUT + varint(size) for size in sizes]
    if not raw:
        return (b"".join(head),)
    return (b"".join(head) + raw[0], *raw[1:])


def _parameters(field: int, parameters: Mapping[str, Parameter]) -> list[bytes]:
    """Return a ``map<string, InferParameter>``, in the order given."""
    return [
        length_delimited(
            field, length_delimited(1, key.encode()) + length_delimited(2, _parameter(value))
        )
        for key, value in parameters.items()
    ]


def _parameter(value: Parameter) -> bytes:
    if isinstance(value, bool):
        return b"\x08" + bytes((value,))
    if isinstance(value, int):
        return (b"\x28" if value > _INT64_MAX else b"\x10") + varint(value)
    if isinstance(value, float):
        return protobuf.double(4, value)
    return length_delimited(3, value.encode())


class _Layout:
    """Where everything lies in a response, for as long as only the tensors' bytes change."""

    __slots__ = ("_constant", "_places", "_total", "head", "outputs")

    def __init__(self, data: bytes, head: Result, outputs: list[_Output]) -> None:
        self.head = head
        self.outputs = outputs
        self._total = len(data)
        self._places = [(name, at, shape, dtype.numpy) for name, dtype, shape, at, _ in outputs]
        # What is neither tensor nor length must be the same byte for byte.
        self._constant: list[tuple[slice, bytes]] = []
        start = 0
        for _, _, _, at, size in sorted(outputs, key=lambda output: output[3]):
            self._constant.append((slice(start, at), data[start:at]))
            start = at + size
        if start < len(data):
            self._constant.append((slice(start, len(data)), data[start:]))

    def read(self, data: bytes | memoryview) -> Result | None:
        """Return what a message of this layout says; None for another one."""
        if len(data) != self._total:
            return None
        for place, constant in self._constant:
            if data[place] != constant:
                return None
        outputs: dict[str, Array] = {}
        for name, start, shape, dtype in self._places:
            outputs[name] = array_at(data, start, shape, dtype)
        return self.head.holding(outputs)


_Output = tuple[str, DataType, tuple[int, ...], int, int]  # the last two: start and size


class ResponseReader:
    """Reads ModelInferResponse messages; remembers the last one's layout.

    Safe to share between threads: the layout is replaced as a whole.
    """

    def __init__(self, shared: frozenset[str] = frozenset()) -> None:
        """Args: shared: the outputs whose bytes are in shared memory."""
        self._shared = shared
        self._layout: _Layout | None = None

    def read(self, data: bytes | memoryview) -> Result:
        """Raise ResponseError for what is no such message or contradicts itself.

        Args:
            data: nobody else holds it.
        """
        known = self._layout
        result = None if known is None else known.read(data)
        if result is not None:
            return result
        data = bytes(data)
        try:
            layout = _parse(data, self._shared)
        except UnicodeDecodeError as exc:
            raise ResponseError("a name in the reply is no UTF-8") from exc
        if layout is None:
            return _typed_contents(data)
        outputs = {
            name: array_from_wire(data, start, size, dtype, shape, name)
            for name, dtype, shape, start, size in layout.outputs
        }
        if all(dtype.wire != "BYTES" for _, dtype, *_ in layout.outputs):
            self._layout = layout
        return layout.head.holding(outputs)


def _parse(data: bytes, shared: frozenset[str]) -> _Layout | None:
    """None where the tensors are not raw bytes."""
    text = {1: "", 2: "", 3: ""}
    metas: list[tuple[str, str, tuple[int, ...]]] = []
    raws: list[tuple[int, int]] = []
    parameters: dict[str, Parameter] = {}
    for field, kind, start, length in protobuf.fields(data, 0, len(data)):
        if kind != 2:
            continue
        if field == 6:
            raws.append((start, length))
        elif field == 5:
            meta = _output_meta(data, start, start + length)
            if meta is None:
                return None
            metas.append(meta)
        elif field == 4:
            parameters.update(parameters_from_wire(data, start, start + length))
        elif field in text:
            text[field] = data[start : start + length].decode()
    if len(raws) != len(metas):
        raise ResponseError(
            f"the reply describes {len(metas)} outputs and holds the bytes of {len(raws)}"
        )
    outputs: list[_Output] = []
    elsewhere: dict[str, tuple[DataType, tuple[int, ...]]] = {}
    for (name, wire, shape), (start, size) in zip(metas, raws, strict=True):
        if name in shared:  # an output in shared memory leaves an empty entry
            elsewhere[name] = (data_type(wire, name), shape)
        else:
            outputs.append((name, data_type(wire, name), shape, start, size))
    head = Result({}, text[1], text[2], text[3], parameters, elsewhere)
    return _Layout(data, head, outputs)


def _output_meta(data: bytes, start: int, end: int) -> tuple[str, str, tuple[int, ...]] | None:
    name = wire = ""
    shape: list[int] = []
    for field, kind, at, length in protobuf.fields(data, start, end):
        if field == 3:
            shape += protobuf.varints(data, at, at + length) if kind == 2 else [at]
        elif kind != 2:
            continue
        elif field == 1:
            name = data[at : at + length].decode()
        elif field == 2:
            wire = data[at : at + length].decode()
        elif field == 5:
            return None
    return name, wire, tuple(shape)


def parameters_from_wire(data: bytes, start: int, end: int) -> dict[str, Parameter]:
    """One entry of a ``map<string, InferParameter>``."""
    key = ""
    value: Parameter = False
    for field, _, at, length in protobuf.fields(data, start, end):
        if field == 1:
            key = data[at : at + length].decode()
        elif field == 2:
            value = _parameter_from_wire(data, at, at + length)
    return {key: value}


def _parameter_from_wire(data: bytes, start: int, end: int) -> Parameter:
    value: Parameter = False
    for field, kind, at, length in protobuf.fields(data, start, end):
        if field == 1 and kind == 0:
            value = bool(at)
        elif field == 2 and kind == 0:
            value = at - (1 << 64) if at > _INT64_MAX else at
        elif field == 3 and kind == 2:
            value = data[at : at + length].decode()
        elif field == 4 and kind == 1:
            value = float(struct.unpack_from("<d", data, at)[0])
        elif field == 5 and kind == 0:
            value = at
    return value


def read_stream(data: bytes, read: Callable[[bytes], Result], what: str) -> Result | None:
    """Return the result in a ModelStreamInferResponse; None for one that only ends a request.

    Raises:
        StatusError: it is an error; see `stream_error`.
    """
    result: Result | None = None
    for field, kind, start, length in protobuf.fields(data, 0, len(data)):
        if field == 1 and kind == 2 and length:
            from tritonsmith_client._protocol.stream_errors import (
                stream_error,  # for calls that failed only
            )

            message = data[start : start + length].decode("utf-8", "replace")
            raise stream_error(what, "", message)
        if field == 2 and kind == 2:
            result = read(data[start : start + length])
    if result is not None and not result and "triton_final_response" in result.parameters:
        return None
    return result


def _typed_contents(data: bytes) -> Result:
    """Servers other than Triton may answer with numbers instead of raw bytes."""
    from google.protobuf.message import DecodeError
    from tritonclient.grpc import service_pb2

    try:
        message = service_pb2.ModelInferResponse.FromString(data)
        outputs = {output.name: _typed_output(output) for output in message.outputs}
    except (DecodeError, ValueError, TypeError, OverflowError) as exc:
        raise ResponseError(f"the reply is malformed: {exc}") from exc
    return Result(outputs, message.model_name, message.model_version, message.id)


def _typed_output(output: Any) -> Array:
    dtype = data_type(output.datatype, output.name)
    values = [value for _, content in output.contents.ListFields() for value in content]
    array = np.empty(len(values), dtype.numpy)
    array[:] = values
    return array.reshape(tuple(output.shape))
