"""An inference as values, before it is put into HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonsmith_client._exchange.exchange import Asked, Exchange, Foreseen, Repeat
from tritonsmith_client._net.headers import Headers
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client._values.metadata import Parameter
from tritonsmith_client._values.result import Result

__all__ = ["InferCall", "InputTensor", "RequestTemplate", "RequestedOutput", "memory_parameters"]


@dataclass(frozen=True)
class InputTensor:
    """An input as it is described on the wire; size in bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestedOutput:
    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True)
class InferCall:
    """An inference request without its tensors' contents."""

    model: str
    version: str
    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def shared_outputs(self) -> frozenset[str]:
        """The outputs that are to be written to shared memory."""
        return frozenset(o.name for o in self.outputs if "shared_memory_region" in o.parameters)


class ForeseenSlot:
    """Where the reader of replies leaves what it foresees of the next one."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: Foreseen | None = None


@dataclass(frozen=True)
class RequestTemplate:
    """An inference request that lacks only the tensors' bytes: made once per set of shapes.

    Attributes:
        framing: what precedes each input's bytes.
        next: what the reader of its replies foresees.
    """

    what: Asked
    route: str | bytes
    framing: tuple[bytes, ...]
    parse: Callable[[Any], Result]
    repeat: Repeat = Repeat.UNEXECUTED
    next: ForeseenSlot = field(default_factory=ForeseenSlot)

    def exchange(
        self, buffers: Sequence[Buffer], headers: Headers = (), affinity: Hashable = None
    ) -> Exchange[Result]:
        if len(buffers) == 1:
            body: list[Buffer] = [self.framing[0], buffers[0]]
        else:
            body = [piece for pair in zip(self.framing, buffers, strict=False) for piece in pair]
            body += self.framing[len(buffers) :]
        return Exchange(
            self.what,
            self.route,
            body,
            self.parse,
            self.repeat,
            headers,
            affinity,
            foreseen=self.next.reply,
        )


def memory_parameters(region: str, start: int, size: int) -> dict[str, Parameter]:
    """How the protocol says that a tensor lies in a region."""
    said: dict[str, Parameter] = {"shared_memory_region": region, "shared_memory_byte_size": size}
    return said | ({"shared_memory_offset": start} if start else {})
