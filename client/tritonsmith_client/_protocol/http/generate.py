"""Streams over HTTP: Triton's generate extension, whose events carry JSON. No I/O.

JSON says less than tensors do: shapes have to be known from the model's metadata, FP16 and BF16
have no form, strings are text. What does not survive that is refused, not guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tritonsmith_client._http.messages import HttpReply
from tritonsmith_client._http.sse import is_event
from tritonsmith_client._protocol.http.infer import array_from_json
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.metadata import ModelMetadata, TensorMetadata
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import InputError, ResponseError

if TYPE_CHECKING:
    from tritonsmith_client._values.metadata import ModelInfo

__all__ = ["read_event", "stream_body"]

_NO_JSON = ("FP16", "BF16")
_USE_GRPC = "use a grpc:// address for streams of this model"


def stream_body(info: ModelInfo, arrays: Mapping[str, Array], options: Options) -> dict[str, Any]:
    """Return the JSON of a request. Raises InputError for what it cannot carry."""
    for name in ("priority", "queue_timeout", "classes", "sequence"):
        if getattr(options, name):
            raise InputError(f"a stream over HTTP takes no {name}; {_USE_GRPC}")
    request: dict[str, Any] = {"id": options.id} if options.id else {}
    if options.parameters:
        request["parameters"] = dict(options.parameters)
    batched = info.config.max_batch_size > 0
    for name, array in arrays.items():
        wire = info.metadata.input_by_name[name].dtype.wire
        rows = array[0] if batched and array.ndim == 2 and len(array) == 1 else array
        if wire in _NO_JSON or rows.ndim != 1 or (batched and rows is array):
            raise InputError(
                f"input '{name}' is {wire} {list(array.shape)}; over HTTP a stream takes one row "
                f"of numbers or text, but no FP16 or BF16: {_USE_GRPC}",
                name,
            )
        request[name] = _texts(rows, name) if wire == "BYTES" else rows.tolist()
    return request


def _texts(row: Array, name: str) -> list[str]:
    try:
        return [item if isinstance(item, str) else bytes(item).decode() for item in row.tolist()]
    except (TypeError, UnicodeDecodeError) as exc:
        raise InputError(
            f"input '{name}' holds what is no text, which JSON cannot carry: {exc}; {_USE_GRPC}",
            name,
        ) from exc


def read_event(
    reply: HttpReply, what: str, metadata: ModelMetadata, options: Options
) -> Result | None:
    """Return the result in an event.

    Raises:
        StatusError: it is an error; see `stream_error`. Triton gives whatever a model says first
            the status 400, and what it says later none.
        ResponseError: it is no event.
    """
    error = reply.error(what)
    if error is not None and not is_event(reply.headers):
        raise error
    try:
        said = json.loads(bytes(reply.body))
        if "error" in said:
            from tritonsmith_client._protocol.stream_errors import (
                stream_error,  # for calls that failed only
            )

            status = "" if error is None else f"HTTP {reply.status}"
            raise stream_error(what, status, str(said["error"]))
        wanted = options.outputs or [tensor.name for tensor in metadata.outputs]
        outputs = {
            tensor.name: _array(tensor, said.pop(tensor.name))
            for tensor in metadata.outputs
            if tensor.name in said
        }
        model, version, id = (
            str(said.pop(key, "")) for key in ("model_name", "model_version", "id")
        )
        given = {name: array for name, array in outputs.items() if name in wanted}
        return Result(given, model, version, id, said)
    except (ValueError, TypeError, AttributeError, OverflowError) as exc:
        raise ResponseError(f"{what}: no event of a stream: {reply.text()[:200]!r}") from exc


def _array(tensor: TensorMetadata, data: Any) -> Array:
    """Return an output in the shape that the metadata let expect; in one axis where they do not."""
    flat = array_from_json(data if isinstance(data, list) else [data], tensor.dtype, (-1,))
    shape = list(tensor.shape)
    if shape.count(-1) > 1:
        shape[0] = 1  # one row was sent
    known = math.prod(axis for axis in shape if axis >= 0)
    if shape.count(-1) == 1 and known and flat.size % known == 0:
        shape[shape.index(-1)] = flat.size // known
    fits = -1 not in shape and math.prod(shape) == flat.size
    return flat.reshape(shape) if fits else flat
