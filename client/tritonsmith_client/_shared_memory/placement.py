"""Where in a region tensors lie, and whether shared memory is worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tritonsmith_client._values.result import Result

if TYPE_CHECKING:
    from tritonsmith_client._values.metadata import ModelInfo

__all__ = ["OutputSizes", "Placement", "fixed_sizes", "learn", "place", "worth_sharing"]


_ALIGNMENT = 64


_SMALLEST = 1 << 18


_WORTH = 65536  # below, a request with its bytes inside is as fast


OutputSizes = Mapping[str, int | None]  # None: BYTES, which stay in the response


def learn(result: Result) -> dict[str, int | None]:
    """Return the sizes to expect from requests that look the same."""
    return {n: None if a.dtype.kind == "O" else int(a.nbytes) for n, a in result.items()}


def worth_sharing(inputs: int, outputs: OutputSizes) -> bool:
    return inputs + sum(size or 0 for size in outputs.values()) >= _WORTH


def fixed_sizes(info: ModelInfo, outputs: OutputSizes) -> bool:
    """Whether outputs always have these sizes, for a batch of the same length."""
    first = 1 if info.config.max_batch_size else 0
    for tensor in info.metadata.outputs:
        size = outputs.get(tensor.name)
        axes = tensor.shape[first:]
        row = math.prod(axes) * tensor.dtype.numpy.itemsize
        if size is not None and (min(axes, default=1) < 1 or size % row):
            return False
    return True


@dataclass(frozen=True)
class Placement:
    """Where the tensors of one request lie in a region.

    Attributes:
        inputs: start and end of each input.
        outputs: start and size of each output that is not left in the response.
        size: of the region.
        kept: bytes of the outputs alone.
    """

    inputs: tuple[tuple[int, int], ...]
    outputs: Mapping[str, tuple[int, int]]
    size: int
    kept: int


def place(inputs: Sequence[int], outputs: OutputSizes) -> Placement:
    """Return inputs of these sizes one after the other, and then the outputs."""
    end = 0

    def reserved(size: int) -> int:
        nonlocal end
        start, end = end, end + -(-size // _ALIGNMENT) * _ALIGNMENT
        return start

    given = tuple((start := reserved(size), start + size) for size in inputs)
    wanted = {name: (reserved(size), size) for name, size in outputs.items() if size}
    # Powers of two, so that regions fit again.
    size = max(_SMALLEST, 1 << (end - 1).bit_length())
    kept = sum(size for _, size in wanted.values())
    return Placement(given, wanted, size, kept)
