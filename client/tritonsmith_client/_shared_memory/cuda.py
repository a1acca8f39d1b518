"""CUDA shared memory: tensors that stay on the GPU between this process and the server.

from tritonsmith_client._shared_memory.cuda import CudaRegion

region = CudaRegion(1 << 20, device=0)             # or CudaRegion.of(tensor), without a copy
client.register(region)
image = region.tensor("FP32", (1, 3, 224, 224))
image.write(pixels)                                # from numpy, or from a torch tensor on the GPU
scores = region.tensor("FP32", (1, 1000), image.end)
client.model("resnet50").using(out={"logits": scores})(image)
torch.as_tensor(scores, device="cuda")             # without a copy; scores.numpy() is a copy
client.unregister(region)
region.close()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonsmith_client._shared_memory.device_arrays import device_array
from tritonsmith_client._shared_memory.region_names import region_name
from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.regions import (
    SIZE,
    CudaLocation,
    Region,
    RegionTensor,
    as_host,
    check_same,
    tensor_type,
)
from tritonsmith_client._values.validators import whole
from tritonsmith_client.cuda_driver import driver
from tritonsmith_client.dtypes import DataType, from_numpy
from tritonsmith_client.errors import CudaError, InputError

if TYPE_CHECKING:
    pass

__all__ = ["CudaRegion", "CudaTensor"]

_BLOCK = 2 << 20  # bytes in which the driver shares memory with other processes


_DEVICE = Argument("device", whole(0, 2**31 - 1, " (the number of a GPU)"))


class CudaTensor(RegionTensor):
    """A tensor in a `CudaRegion`; torch, CuPy and Numba read it without a copy."""

    region: CudaRegion

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.datatype.wire == "BF16":
            raise AttributeError("__cuda_array_interface__ has no name for bfloat16")
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.region.address + self.offset, False),
            "strides": None,
        }

    def torch(self) -> Any:
        """Return the tensor as a torch tensor on its GPU, without a copy; bfloat16 too."""
        import torch

        where = f"cuda:{self.region.device}"
        if self.datatype.wire != "BF16":
            return torch.as_tensor(self, device=where)
        bits = self.region.tensor("INT16", self.shape, self.offset)
        return torch.as_tensor(bits, device=where).view(torch.bfloat16)


class CudaRegion(Region):
    """Memory of a GPU that a server on this host can open.

    Attributes:
        device: the GPU's number.
        address: where it is on the GPU.
        handle: what the server opens it with (a ``cudaIpcMemHandle_t``).
    """

    kind = "cuda"

    def __init__(self, size: int, device: int = 0) -> None:
        """Allocates memory.

        Args:
            size: bytes, at least 1.
            device: the GPU's number.

        Raises:
            InputError: there is no CUDA driver on this machine.
            CudaError: the GPU has not so much memory, or there is none of that number.
        """
        size = SIZE(size, "CudaRegion()")
        device = _DEVICE(device, "CudaRegion()")
        self._owner: object = None  # ours until it is set
        self._closed = False
        self.device = device
        self._driver = driver()
        # Whole blocks, or what else lies in them would be open to the server, too.
        self.address = self._driver.allocate(device, -(-size // _BLOCK) * _BLOCK)
        self.handle = self._driver.handle(device, self.address)
        super().__init__(region_name(), size)

    @classmethod
    def of(cls, tensor: Any) -> CudaTensor:
        """Return a tensor on a GPU as it lies there, with a region around it.

        After ``client.register(found.region)`` the server can then read and write the whole
        allocation that holds the tensor, which for PyTorch is a block that other tensors share.

        Args:
            tensor: torch, or any array with DLPack or ``__cuda_array_interface__``.

        Raises:
            InputError: it is not on a GPU, or not contiguous.
            CudaError: its memory is of a kind that processes cannot share, such as a memory pool
                or PyTorch's expandable segments: copy it into a `CudaRegion` then.
        """
        found = device_array(tensor)
        if found is None:
            raise InputError(
                f"a {type(tensor).__name__} that is not on a GPU has no CUDA shared memory; "
                "allocate a CudaRegion(size) and write() to a tensor in it"
            )
        region = cls.__new__(cls)
        region._driver = driver()
        start, size = region._driver.allocation(found.device, found.address)
        region._owner, region._closed = found, False
        region.device, region.address = found.device, start
        region.handle = region._driver.handle(found.device, start)
        Region.__init__(region, region_name(), size)
        return region.tensor(from_numpy(found.dtype), found.shape, found.address - start)

    def tensor(self, dtype: str | DataType, shape: Sequence[int], offset: int = 0) -> CudaTensor:
        """See `Region.tensor`."""
        return CudaTensor(self, *tensor_type(dtype, shape, offset))

    @property
    def location(self) -> CudaLocation:
        return CudaLocation(self.handle, self.device)

    def view(self, tensor: RegionTensor) -> Array:
        array = np.empty(tensor.shape, tensor.dtype)
        if tensor.nbytes:
            where = array.__array_interface__["data"][0]
            self._driver.to_host(self.device, where, self.address + tensor.offset, tensor.nbytes)
        return array

    def write(self, tensor: RegionTensor, array: Any) -> None:
        target, size = self.address + tensor.offset, tensor.nbytes
        found = device_array(array)
        if found is None:
            host = as_host(array)
            check_same(tensor, host.dtype, host.shape)
            if size:
                host = np.ascontiguousarray(host)
                source = host.__array_interface__["data"][0]
                self._driver.to_device(self.device, target, source, size)
            return
        check_same(tensor, found.dtype, found.shape)
        if found.device != self.device:
            raise InputError(f"the array is on GPU {found.device}, the region on {self.device}")
        self._driver.settle(self.device)  # what is still being written to the array
        self._driver.on_device(self.device, target, found.address, size)

    def settle(self) -> None:
        self._driver.settle(self.device)

    def close(self) -> None:
        """Frees the memory, if it is the region's own. Unregister the region before."""
        if not self._closed and self._owner is None:
            self._driver.free(self.device, self.address)
        self._closed, self._owner = True, None

    def __del__(self) -> None:
        try:
            if hasattr(self, "address"):
                self.close()
        except CudaError:  # the driver has ended before us
            pass
