"""System shared memory that a program makes itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from tritonsmith_client._shared_memory import blocks
from tritonsmith_client._shared_memory.blocks import clear_folder
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.regions import (
    SIZE,
    Region,
    RegionTensor,
    SystemLocation,
    as_host,
    check_same,
)
from tritonsmith_client.errors import InputError

__all__ = ["SystemRegion"]


class SystemRegion(Region):
    """System shared memory, readable and writable by this user only; see the module's example."""

    kind = "system"

    def __init__(self, size: int) -> None:
        """Allocates memory.

        Args:
            size: bytes, at least 1.

        Raises:
            InputError: there is no shared memory, or not enough of it.
        """
        size = SIZE(size, "SystemRegion()")
        clear_folder()
        try:
            self._memory = blocks.Region(size)
        except OSError as exc:
            raise InputError(f"no shared memory of {size} bytes: {exc}") from exc
        super().__init__(self._memory.name, size)

    @property
    def key(self) -> str:
        """The name of the region's file."""
        return self._memory.key

    @property
    def location(self) -> SystemLocation:
        return SystemLocation(self.key)

    def view(self, tensor: RegionTensor) -> Array:
        if 0 in tensor.shape:
            return np.empty(tensor.shape, tensor.dtype)
        array: Array = np.ndarray(tensor.shape, tensor.dtype, self._memory.map, tensor.offset)
        return array

    def write(self, tensor: RegionTensor, array: Any) -> None:
        host = as_host(array)
        check_same(tensor, host.dtype, host.shape)
        tensor.numpy()[...] = host

    def close(self) -> None:
        """Take the name away; the memory goes with the last array on it."""
        self._memory.unlink()

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            self._memory.unlink()
