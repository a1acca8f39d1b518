"""A model as the client knows it: the flows behind every call, for both shells. No I/O."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .batches import batch_size, join, parts
from .checks import bind, check_classes, check_outputs, check_tensors
from .deadline import Deadline
from .dtypes import DataType
from .errors import InputError, InvalidArgumentError
from .exchange import (
    Exchange,
    Flow,
    Gather,
    InferCall,
    InputTensor,
    Prepared,
    Repeat,
    RequestedOutput,
)
from .options import Options
from .protocol import WireProtocol
from .retry import Retry, attempts
from .tensors import Array, wire_buffer
from .values import ModelConfig, ModelMetadata, Result

__all__ = ["ModelCore", "Signature", "read_signature"]

_PLANS = 256


@dataclass(frozen=True)
class Signature:
    """What the server said about a model; calls are checked against it."""

    metadata: ModelMetadata
    config: ModelConfig


def read_signature(
    protocol: WireProtocol, name: str, version: str, retry: Retry, deadline: Deadline
) -> Flow[Signature]:
    metadata = yield from attempts(protocol.model_metadata(name, version), retry, deadline)
    config = yield from attempts(protocol.model_config(name, version), retry, deadline)
    return Signature(metadata, config)


@dataclass(frozen=True)
class _Plan:
    """A checked combination of options, names, data types and shapes.

    Attributes:
        prepared: the request without its bytes; None where it depends on the tensors' contents,
            as the sizes of strings do.
    """

    types: dict[str, DataType]
    prepared: Prepared | None


class ModelCore:
    """Checks, builds and retries requests to one version of one model.

    Threads may share it: its state is replaced as a whole.
    """

    def __init__(
        self, protocol: WireProtocol, name: str, version: str, retry: Retry, signature: Signature
    ) -> None:
        self.name = name
        self.version = version
        self._protocol = protocol
        self._retry = retry
        self.signature = signature
        self._plans: dict[Any, _Plan] = {}

    def describe(self) -> str:
        """The model in one line, for a repr."""
        metadata = self.signature.metadata
        inputs, outputs = (", ".join(map(str, t)) for t in (metadata.inputs, metadata.outputs))
        return f"'{self.name}': {inputs} -> {outputs}"

    def infer(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options, deadline: Deadline
    ) -> Flow[Result]:
        """One request and its result; once more if the model turns out to have been reloaded."""
        try:
            result = yield from self._once(args, named, options, deadline)
        except (InputError, InvalidArgumentError):
            if options.sequence is not None or not (yield from self._refresh(deadline)):
                raise
            result = yield from self._once(args, named, options, deadline)
        return into(result, options.out) if options.out else result

    def _once(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options, deadline: Deadline
    ) -> Flow[Result]:
        signature = self.signature
        arrays = bind(signature.metadata, args, named)
        limit = signature.config.max_batch_size
        if not (limit and options.split and batch_size(arrays) > limit) or options.sequence:
            exchange = self._request(signature, arrays, options)
            return (yield from attempts(exchange, self._retry, deadline))
        check_tensors(signature.metadata, signature.config, arrays, limit=sys.maxsize)
        pieces = parts(arrays, limit)
        exchanges = [self._request(signature, piece, options) for piece in pieces]
        results = yield Gather([attempts(e, self._retry, deadline) for e in exchanges])
        return join(results, [batch_size(piece) for piece in pieces])

    def stream(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options
    ) -> Exchange[Result | None]:
        """A request whose responses are read one by one; None for a response without content.

        Raises:
            InputError: something does not fit.
            UnsupportedError: the protocol has no streams.
        """
        arrays = bind(self.signature.metadata, args, named)
        return self._protocol.streamed(self._request(self.signature, arrays, options))

    def _refresh(self, deadline: Deadline) -> Flow[bool]:
        """Reads the signature again; True if it has changed."""
        before = self.signature
        now = yield from read_signature(
            self._protocol, self.name, self.version, self._retry, deadline
        )
        if now == before:
            return False
        self._plans = {}
        self.signature = now
        return True

    def _request(
        self, signature: Signature, arrays: dict[str, Array], options: Options
    ) -> Exchange[Result]:
        plans = self._plans
        described = tuple([(name, a.dtype, a.shape) for name, a in arrays.items()])
        key = (described, options.key())
        plan = plans.get(key) if options.sequence is None else None
        if plan is None:
            plan = self._plan(signature, arrays, options)
            if len(plans) >= _PLANS:
                plans.clear()
            if not options.id and options.sequence is None:
                plans[key] = plan
        types = plan.types
        wire = [wire_buffer(array, types[name], name) for name, array in arrays.items()]
        prepared = plan.prepared
        if prepared is None:
            sizes = [size for _, size in wire]
            prepared = self._prepare(arrays, types, sizes, options)
        affinity = None if options.sequence is None else options.sequence.id
        return prepared.exchange([buffer for buffer, _ in wire], options.headers, affinity)

    def _plan(self, signature: Signature, arrays: dict[str, Array], options: Options) -> _Plan:
        types = check_tensors(signature.metadata, signature.config, arrays)
        check_outputs(signature.metadata, options.outputs)
        if options.classes:
            check_classes(signature.metadata, options.outputs)
        if any(dtype.wire == "BYTES" for dtype in types.values()):
            return _Plan(types, None)
        sizes = [array.nbytes for array in arrays.values()]
        return _Plan(types, self._prepare(arrays, types, sizes, options))

    def _prepare(
        self,
        arrays: dict[str, Array],
        types: dict[str, DataType],
        sizes: list[int],
        options: Options,
    ) -> Prepared:
        call = InferCall(
            self.name,
            self.version,
            tuple(
                InputTensor(name, types[name].wire, array.shape, size)
                for (name, array), size in zip(arrays.items(), sizes, strict=True)
            ),
            self._requested(options),
            options.id,
            options.wire_parameters(),
        )
        repeat = Repeat.UNEXECUTED if options.sequence is None else Repeat.NEVER
        return self._protocol.prepare(call, repeat)

    def _requested(self, options: Options) -> tuple[RequestedOutput, ...]:
        names = options.outputs
        if not options.classes:
            return tuple(RequestedOutput(name) for name in names)
        names = names or tuple(tensor.name for tensor in self.signature.metadata.outputs)
        return tuple(RequestedOutput(name, {"classification": options.classes}) for name in names)


def into(result: Result, out: Mapping[str, Array]) -> Result:
    """The result with these arrays in place of its own, which are copied into them.

    Raises:
        InputError: an array has another shape or data type than the output, or there is none.
    """
    outputs = dict(result)
    for name, array in out.items():
        given = result[name]
        if (array.shape, array.dtype) != (given.shape, given.dtype) or not array.flags.writeable:
            raise InputError(
                f"out['{name}'] is {array.dtype}{list(array.shape)} and the output is "
                f"{given.dtype}{list(given.shape)}; give a writable array that is the same",
                name,
            )
        array[...] = given
        outputs[name] = array
    return Result(outputs, result.model_name, result.model_version, result.id, result.parameters)
