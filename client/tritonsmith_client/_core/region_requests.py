"""Requests of which some tensors lie in shared memory that the caller made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonsmith_client._core.input_checks import check_outputs, check_tensors
from tritonsmith_client._exchange.exchange import Exchange, Repeat
from tritonsmith_client._protocol.infer_request import (
    InferCall,
    InputTensor,
    RequestedOutput,
    memory_parameters,
)
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._protocol.protocol import WireProtocol
from tritonsmith_client._values.buffers import Array, wire_buffer
from tritonsmith_client._values.metadata import ModelInfo, Parameter
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import InputError

__all__ = ["collected", "is_placed", "region_request"]

_Inputs = Mapping[str, Array | RegionTensor]


def is_placed(arrays: _Inputs, out: Mapping[str, Any]) -> bool:
    """Whether a tensor of a call lies in a region."""
    for array in arrays.values():  # on every call, and any() takes thrice as long
        if isinstance(array, RegionTensor):
            return True
    return bool(out) and any(isinstance(array, RegionTensor) for array in out.values())


def collected(result: Result, out: Mapping[str, Any]) -> Result:
    """Return the result with the outputs that lie in regions, as the server described them."""
    outputs: dict[str, Any] = dict(result)
    for name, (dtype, shape) in result.elsewhere.items():
        given = out[name]
        same = (given.datatype, given.shape) == (dtype, shape)
        outputs[name] = given if same else given.region.tensor(dtype, shape, given.offset)
    return result.holding(outputs)


def region_request(
    protocol: WireProtocol,
    name: str,
    version: str,
    info: ModelInfo,
    arrays: _Inputs,
    options: Options,
) -> Exchange[Result]:
    """Return the request. Raises InputError for what does not fit."""
    metadata = info.metadata
    out = {n: t for n, t in options.out.items() if isinstance(t, RegionTensor)}
    types = check_tensors(metadata, info.config, arrays)
    check_outputs(metadata, [*options.outputs, *out])
    if options.classes:
        raise InputError("a classification cannot be placed in a region")
    inside = {n: a for n, a in arrays.items() if not isinstance(a, RegionTensor)}
    wire = {n: wire_buffer(a, types[n], n) for n, a in inside.items()}
    for tensor in (*arrays.values(), *out.values()):
        if isinstance(tensor, RegionTensor):
            tensor.region.settle()
    inputs = tuple(
        InputTensor(n, types[n].wire, a.shape, wire[n][1] if n in wire else 0, _parameters(a))
        for n, a in arrays.items()
    )
    # None named means all of them, but then none can be told where to go.
    names = options.outputs or (out and [tensor.name for tensor in metadata.outputs])
    outputs = tuple(RequestedOutput(n, _parameters(out.get(n))) for n in names)
    call = InferCall(name, version, inputs, outputs, options.id, options.wire_parameters())
    step = options.sequence
    prepared = protocol.request_template(call, Repeat.UNEXECUTED if step is None else Repeat.NEVER)
    buffers = [buffer for buffer, _ in wire.values()]
    return prepared.exchange(buffers, options.headers, None if step is None else step.id)


def _parameters(tensor: Any) -> dict[str, Parameter]:
    return memory_parameters(*tensor.place) if isinstance(tensor, RegionTensor) else {}
