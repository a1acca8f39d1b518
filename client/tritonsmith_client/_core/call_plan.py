"""The part of a call that stays the same from one call to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonsmith_client._exchange.exchange import Exchange
from tritonsmith_client._protocol.infer_request import RequestTemplate
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._shared_memory.placement import OutputSizes, Placement
from tritonsmith_client._shared_memory.transfer import collect
from tritonsmith_client._values.buffers import Array, Buffer
from tritonsmith_client._values.result import Result
from tritonsmith_client.dtypes import DataType

if TYPE_CHECKING:
    from tritonsmith_client._shared_memory.pool import Lease

__all__ = ["Alike", "Layout", "PreparedCall", "Ready", "SharedExchange"]


@dataclass(eq=False)
class PreparedCall:
    """A checked combination of options, names, data types and shapes.

    Attributes:
        tensors: data type and shape of each input by name.
        prepared: the request without its bytes; None where it depends on the tensors' contents,
            as the sizes of strings do.
        direct: the arrays' memory is what is sent, if they are contiguous.
        outputs: the sizes of the outputs of the last such request; None before the first.
        layout: where tensors lie that travel through shared memory.
        failed: shared memory failed for the last of these requests.
        inline: it failed twice and is not tried again.
        small: it has too little to share.
    """

    tensors: dict[str, tuple[DataType, tuple[int, ...]]]
    prepared: RequestTemplate | None
    direct: bool = False
    outputs: OutputSizes | None = None
    layout: Layout | None = None
    failed: bool = False
    inline: bool = False
    small: bool = False


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tensors of a plan's requests lie in regions of shared memory.

    Attributes:
        requests: the request for each region, by its name.
    """

    plan: PreparedCall
    placement: Placement
    requests: dict[str, RequestTemplate]


@dataclass(slots=True, eq=False, kw_only=True)
class SharedExchange(Exchange[Result]):
    """A request whose tensors lie in shared memory; transports see no difference.

    Attributes:
        lease: what keeps the memory.
        layout: where in it they lie.
    """

    lease: Lease
    layout: Layout

    def collect(self, result: Result) -> None:
        """Complete the result, with which the server is done, with the outputs in the memory."""
        collect(self.lease, self.layout.placement, result)


@dataclass(slots=True, eq=False)
class Alike:
    """What the arrays of a call have to be for its plan to be this one."""

    options: Options
    described: list[tuple[np.dtype[Any], tuple[int, ...]]]
    plan: PreparedCall

    def buffers(self, args: tuple[Any, ...]) -> list[Buffer] | None:
        """Return the arrays' bytes if they are alike and contiguous."""
        if len(args) != len(self.described):
            return None
        found: list[Buffer] = []
        for value, (dtype, shape) in zip(args, self.described):  # noqa: B905  # costs as much again
            if type(value) is not np.ndarray or value.dtype is not dtype or value.shape != shape:
                return None
            view = memoryview(value)  # type: ignore[arg-type]  # as in tensors.flat_view
            if not view.c_contiguous:
                return None
            found.append(view.cast("B"))
        return found


@dataclass(slots=True, eq=False)  # made for each call, and a frozen one takes thrice as long
class Ready:
    """Arrays that fit a model, as they go over the wire."""

    plan: PreparedCall
    arrays: Mapping[str, Array]
    wire: list[tuple[Buffer, int]]

    @property
    def sizes(self) -> list[int]:
        return [size for _, size in self.wire]

    @property
    def buffers(self) -> list[Buffer]:
        return [buffer for buffer, _ in self.wire]
