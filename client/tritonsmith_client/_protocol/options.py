"""What can be said about a call besides its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import EllipsisType
from typing import Any

import numpy as np

from tritonsmith_client._net.deadline import TIMEOUT
from tritonsmith_client._net.headers import CALL_HEADERS, Headers
from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.metadata import Parameter
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client._values.validators import (
    INT64,
    TEXT,
    UINT32,
    RefusedError,
    can_be_sent,
    flag,
    names,
    seconds,
    shown,
    text,
    whole,
)
from tritonsmith_client.errors import InputError

__all__ = ["Options", "SequenceStep", "changed"]


@dataclass(frozen=True)
class SequenceStep:
    """Where in a sequence a request stands."""

    id: int | str
    start: bool
    end: bool


@dataclass(frozen=True)
class Options:
    """What can be said about a call besides its inputs.

    Attributes:
        outputs: names of the wanted outputs; empty for all.
        timeout: seconds for the whole call; None for no deadline; ``...`` for the client's.
        id: comes back in the result and stands in the server's logs.
        parameters: reach the model; bool, int, float or str.
        priority: 1 is the highest, 0 the model's default.
        queue_timeout: seconds that the request may wait in the server's queue.
        headers: HTTP headers or gRPC metadata.
        classes: above 0, each output is replaced by its so many largest values as
            ``value:index:label`` (the server's classification extension).
        convert: numbers of another data type are converted, float32 to BF16 for instance, instead
            of refused.
        split: a batch over the model's max_batch_size is sent in parts and joined.
        hedge: seconds after which a request without an answer is sent once more; 0 for never.
        out: arrays, or tensors in regions, that take the outputs of these names.
        sequence: id, start and end of the sequence that the request belongs to.
    """

    outputs: tuple[str, ...] = ()
    timeout: float | EllipsisType | None = ...
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    queue_timeout: float | None = None
    headers: Headers = ()
    classes: int = 0
    convert: bool = False
    split: bool = True
    hedge: float = 0.0
    out: Mapping[str, Array | RegionTensor] = field(default_factory=dict)
    sequence: SequenceStep | None = None

    @property
    def may_share(self) -> bool:
        """Whether the request may travel through shared memory."""
        # The slower of two attempts would write into a region that is in use again.
        return not self.classes and not self.hedge and self.sequence is None

    @cached_property
    def plain(self) -> bool:
        """Whether a request is all there is to a call with these."""
        return not (self.convert or self.out or self.id or self.hedge or self.sequence)

    def wire_parameters(self) -> dict[str, Parameter]:
        """Return the request's parameters on the wire."""
        result = dict(self.parameters)
        if self.priority:
            result["priority"] = self.priority
        if self.queue_timeout is not None:
            result["timeout"] = round(self.queue_timeout * 1e6)  # Triton counts microseconds
        if self.sequence is not None:
            result["sequence_id"] = self.sequence.id
            result["sequence_start"] = self.sequence.start
            result["sequence_end"] = self.sequence.end
        return result

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What of this shows in a request's head."""
        typed = tuple((name, type(v), v) for name, v in self.parameters.items())
        return (self.outputs, self.id, typed, self.priority, self.queue_timeout, self.classes)


def changed(options: Options, model: str, **given: Any) -> Options:
    """Give the options with those given that are not None, and with the timeout, which may be None.

    Args:
        model: its name, for messages.

    Raises:
        InputError: one of them makes no sense, or cannot be sent.
    """
    timeout = given.pop("timeout")
    changes = {
        name: _ARGUMENTS[name](value, model=model)
        for name, value in given.items()
        if value is not None
    }
    if not isinstance(timeout, EllipsisType):
        changes["timeout"] = TIMEOUT(timeout, model=model)
    result = replace(options, **changes)
    for name in result.out:
        if result.outputs and name not in result.outputs:
            raise InputError(
                f"model '{model}': out has the output '{name}', which is not among those asked "
                f"for with outputs={list(result.outputs)}",
                name,
                model=model,
                hint="add it there or leave it out here",
            )
    return result


def _parameters(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RefusedError("a dict from names to bool, int, float or str")
    return {_parameter_name(key): _parameter(key, given) for key, given in value.items()}


def _parameter_name(key: Any) -> str:
    if not isinstance(key, str) or not can_be_sent(key):
        raise RefusedError(TEXT, f"the name of the parameter {shown(key)} is none")
    if key in _RESERVED or key.startswith("triton_"):
        use = _RESERVED.get(key, "given another name")
        raise RefusedError(use, f"the parameter '{key}' belongs to the protocol")
    return key


def _parameter(key: str, value: Any) -> Any:
    given = value.item() if isinstance(value, np.generic) else value
    if isinstance(given, (bool, float)):
        return given
    if isinstance(given, int) and -INT64 <= given < INT64:
        return given
    if isinstance(given, str) and can_be_sent(given):
        return given
    raise RefusedError(
        "a bool, int, float or str; ints have 64 bits, and texts neither NUL characters nor lone "
        "surrogates",
        f"the parameter '{key}' is {shown(value)}",
    )


def _out(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RefusedError("a dict from output names to arrays")
    for key, given in value.items():
        writable = isinstance(given, np.ndarray) and given.flags.writeable
        if not isinstance(key, str) or not (writable or isinstance(given, RegionTensor)):
            what = f"out[{shown(key)}] is {shown(given)}"
            raise RefusedError(
                "a writable array or RegionTensor, and its key an output's name", what
            )
    return dict(value)


# Words that the protocol gives a meaning of its own; Triton reserves triton_* as well.
_RESERVED = {
    "binary_data_output": "left out: outputs are always binary",
    "headers": "given with headers=",
    "priority": "given with priority=",
    "sequence_end": "left to model.sequence()",
    "sequence_id": "left to model.sequence()",
    "sequence_start": "left to model.sequence()",
    "timeout": "given with queue_timeout=",
}

_ARGUMENTS: Mapping[str, Argument[Any]] = {
    argument.name: argument
    for argument in (
        Argument("classes", whole(0, UINT32, " (0 for none)")),
        Argument("convert", flag),
        CALL_HEADERS,
        Argument("hedge", seconds("from 0 (never)")),
        Argument("id", text),
        Argument("out", _out),
        Argument("outputs", names),
        Argument("parameters", _parameters),
        Argument("priority", whole(0, UINT32, " (1 is the highest, 0 the model's default)")),
        Argument(
            "queue_timeout",
            seconds("from 0.000001", ", or 0 for the model's default", least=1e-6, zero=True),
        ),
        Argument("split", flag),
    )
}
