"""Shared memory that a program makes itself, and tensors that lie in it.

from tritonsmith_client import SystemRegion

region = SystemRegion(1 << 20)
client.register(region)
image = region.tensor("FP32", (1, 3, 224, 224))
image.numpy()[...] = pixels                           # straight into what the server reads
scores = region.tensor("FP32", (1, 1000), image.end)
client.model("resnet50").using(out={"logits": scores})(image)
scores.numpy()                                        # what the server wrote, without a copy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.interop import as_numpy
from tritonsmith_client._values.validators import INT64, RefusedError, is_whole, whole
from tritonsmith_client.dtypes import DataType, from_wire
from tritonsmith_client.errors import InputError

__all__ = [
    "SIZE",
    "CudaLocation",
    "Region",
    "RegionTensor",
    "SystemLocation",
    "as_host",
    "check_same",
    "tensor_type",
]


@dataclass(frozen=True)
class SystemLocation:
    """System shared memory: the name of its file in /dev/shm."""

    key: str


@dataclass(frozen=True)
class CudaLocation:
    """Memory of a GPU: CUDA's handle for other processes, 64 bytes, and the GPU's number."""

    handle: bytes
    device: int


class Region:
    """A block of memory that a server on this host can map: `SystemRegion` or `CudaRegion`.

    Register it with a client before it is used. After a call that failed or ended early the server
    may still write to it.

    Attributes:
        name: what the server calls it.
        size: bytes.
    """

    kind = ""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    def tensor(self, dtype: str | DataType, shape: Sequence[int], offset: int = 0) -> RegionTensor:
        """Return a tensor in this region.

        Args:
            dtype: any but BYTES, as on the wire: ``"FP32"``, ``"INT64"`` ...
            offset: bytes from the region's start.

        Raises:
            InputError: it does not fit in, or one of these is no data type, shape or offset.
        """
        return RegionTensor(self, *tensor_type(dtype, shape, offset))

    @property
    def location(self) -> SystemLocation | CudaLocation:
        """Where a server on this host finds the memory."""
        raise NotImplementedError

    def view(self, tensor: RegionTensor) -> Array:
        """See `RegionTensor.numpy`."""
        raise NotImplementedError

    def write(self, tensor: RegionTensor, array: Any) -> None:
        """See `RegionTensor.write`."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until what this process does to the memory is done."""

    def close(self) -> None:
        """Frees the memory. Unregister the region before."""


class RegionTensor:
    """A tensor in shared memory: an input of a call, or in ``using(out={...})`` an output.

    Attributes:
        region: where it lies.
        dtype: numpy's data type.
        shape, nbytes, offset: as one expects.
    """

    __slots__ = ("datatype", "dtype", "nbytes", "ndim", "offset", "region", "shape")

    def __init__(
        self, region: Region, datatype: DataType, shape: tuple[int, ...], offset: int
    ) -> None:
        self.region = region
        self.datatype = datatype
        self.dtype = datatype.numpy
        self.shape = shape
        self.ndim = len(shape)
        self.offset = offset
        self.nbytes = int(np.prod(shape, dtype=object)) * self.dtype.itemsize
        if self.end > region.size:
            raise InputError(
                f"{datatype} {list(shape)} at byte {offset} does not fit into the region "
                f"'{region.name}' of {region.size} bytes"
            )

    @property
    def end(self) -> int:
        """Where the next tensor may start: a multiple of 64 bytes, if the region goes that far."""
        end = self.offset + self.nbytes
        return min(-(-end // 64) * 64, max(end, self.region.size))

    @property
    def place(self) -> tuple[str, int, int]:
        """Name of the region, offset and size in bytes."""
        return self.region.name, self.offset, self.nbytes

    def numpy(self) -> Array:
        """Return the content: for system shared memory the memory itself, for CUDA a copy."""
        return self.region.view(self)

    def write(self, array: Any) -> None:
        """Copy an array of the same data type and shape into the region.

        Args:
            array: numpy, torch or DLPack; for a `CudaRegion`, on the host or on the same GPU.

        Raises:
            InputError: data type or shape differ.
        """
        self.region.write(self, array)

    def __repr__(self) -> str:
        return f"RegionTensor({self.datatype} {list(self.shape)} in '{self.region.name}')"


def as_host(array: Any) -> Array:
    """Return an array of any library as numpy."""
    found = array if isinstance(array, np.ndarray) else as_numpy(array, "of the region")
    return np.asarray(array) if found is None else found


def check_same(tensor: RegionTensor, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise InputError for an array that is not what the tensor is."""
    if (dtype, shape) != (tensor.dtype, tensor.shape):
        raise InputError(
            f"{tensor!r} takes {tensor.dtype}{list(tensor.shape)} and was given "
            f"{dtype}{list(shape)}"
        )


def _shape(value: Any) -> tuple[int, ...]:
    listed = isinstance(value, (list, tuple, np.ndarray))
    if listed and all(is_whole(axis) and axis >= 0 for axis in value):
        return tuple(map(int, value))
    raise RefusedError("a list or tuple of ints from 0 on")


_SHAPE = Argument("shape", _shape)
_OFFSET = Argument("offset", whole(0, INT64 - 1, " (bytes)"))
SIZE = Argument("size", whole(1, INT64 - 1, " (bytes)"))


def tensor_type(
    dtype: str | DataType, shape: Sequence[int], offset: int
) -> tuple[DataType, tuple[int, ...], int]:
    """Return what a tensor in a region is, in the form in which it is used. Raises InputError."""
    try:
        found = dtype if isinstance(dtype, DataType) else from_wire(dtype)
    except (KeyError, TypeError):
        raise InputError(f"{dtype!r} is no data type; write e.g. 'FP32'") from None
    if found.wire == "BYTES":
        raise InputError("BYTES have no fixed size, so they cannot be placed in a region")
    where = "region.tensor()"
    return found, _SHAPE(shape, where), _OFFSET(offset, where)
