"""A model as the client knows it: the flows behind every call, for both shells. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checks import bind, check_outputs, check_tensors
from .deadline import Deadline
from .dtypes import DataType
from .errors import InputError, InvalidArgumentError
from .exchange import Exchange, Flow, InferCall, InputTensor, Prepared, Repeat, RequestedOutput
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

    def infer(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options, deadline: Deadline
    ) -> Flow[Result]:
        """One request and its result; once more if the model turns out to have been reloaded."""
        try:
            exchange = self._request(args, named, options)
            return (yield from attempts(exchange, self._retry, deadline))
        except (InputError, InvalidArgumentError):
            if not (yield from self._refresh(deadline)):
                raise
        exchange = self._request(args, named, options)
        return (yield from attempts(exchange, self._retry, deadline))

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
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options
    ) -> Exchange[Result]:
        signature, plans = self.signature, self._plans
        arrays = bind(signature.metadata, args, named)
        described = tuple([(name, a.dtype, a.shape) for name, a in arrays.items()])
        key = (described, options.key())
        plan = plans.get(key)
        if plan is None:
            plan = self._plan(signature, arrays, options)
            if len(plans) >= _PLANS:
                plans.clear()
            if not options.id:
                plans[key] = plan
        types = plan.types
        wire = [wire_buffer(array, types[name], name) for name, array in arrays.items()]
        prepared = plan.prepared
        if prepared is None:
            sizes = [size for _, size in wire]
            prepared = self._prepare(arrays, types, sizes, options)
        return prepared.exchange([buffer for buffer, _ in wire], options.headers)

    def _plan(self, signature: Signature, arrays: dict[str, Array], options: Options) -> _Plan:
        types = check_tensors(signature.metadata, signature.config, arrays)
        check_outputs(signature.metadata, options.outputs)
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
            tuple(RequestedOutput(name) for name in options.outputs),
            options.id,
            options.wire_parameters(),
        )
        return self._protocol.prepare(call, Repeat.UNEXECUTED)
