"""Replies that are like the ones before: recognised by their bytes, read without their JSON."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tritonsmith_client._exchange.exchange import Exchange, Foreseen, T
from tritonsmith_client._http.messages import HttpReply
from tritonsmith_client._values.buffers import (
    Array,
    Buffer,
    array_at,
    is_little_endian,
)
from tritonsmith_client._values.result import Result
from tritonsmith_client.dtypes import DataType

__all__ = ["OutputLayout", "Reply", "ReplyLayout", "ReplyTemplate", "Request", "value_of"]


OutputLayout = tuple[str, DataType, tuple[int, ...], int, int]  # the last two: start and size


@dataclass(frozen=True)
class ReplyLayout:
    """What the JSON of a reply says.

    Attributes:
        outputs: those whose bytes follow the JSON.
        given: those that are in the JSON.
        size: bytes that follow the JSON.
        plain: each output can be an array on memory that begins with the first.
    """

    json: bytes
    result: Result
    outputs: list[OutputLayout]
    given: dict[str, Array]
    size: int

    @property
    def plain(self) -> bool:
        return all(
            size and not start % dtype.numpy.itemsize and is_little_endian(dtype.numpy)
            for _, dtype, _, start, size in self.outputs
        )

    def read(self, body: memoryview) -> Result:
        """Return a body of this layout, which has been checked."""
        length = len(self.json)
        outputs = {}
        for name, dtype, shape, start, _ in self.outputs:
            outputs[name] = array_at(body, length + start, shape, dtype.numpy)
        return self.result.holding(outputs)


class ReplyTemplate:
    """A reply that came twice in a row, but for the bytes of its tensors: so will the next.

    Attributes:
        start: all that precedes the tensors: status line, headers and JSON.
        size: bytes of the tensors.
    """

    __slots__ = ("_outputs", "_result", "size", "start")

    def __init__(self, start: bytes, layout: ReplyLayout) -> None:
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


Request = tuple[list[Buffer], Foreseen | None]
Reply = HttpReply | Result  # a result where the reply was foreseen


def value_of(exchange: Exchange[T], reply: Reply) -> T:
    """Return what a reply means. Raises TritonError."""
    if type(reply) is Result:
        return reply  # type: ignore[return-value]  # the exchange is an inference
    return exchange.parse(reply)
