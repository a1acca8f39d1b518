"""The GPU as the server's runner of plans wants it, through the driver's own library.

What the server does with NVIDIA's Python packages, which a machine that builds plans need not have.
Everything waits for everything: a few inputs are run once each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tritonsmith_client.cuda_driver import Driver, driver

__all__ = ["Device"]

_DEFAULT_STREAM = 0
_ALIGNMENT = 256  # bytes; TensorRT wants it of all tensors, and of those on the host as well


class Device:
    """One GPU, by CUDA's number. All methods raise CudaError where the driver fails."""

    def __init__(self, index: int = 0) -> None:
        self._index, self._driver = index, driver()

    def use(self) -> None:
        """Nothing to do: each call to the driver names its GPU."""

    def stream(self) -> _Stream:
        return _Stream(self._driver, self._index)

    def buffer(self) -> _Buffer:
        return _Buffer(self._driver, self._index)


class _Stream:
    """CUDA's default one."""

    handle = _DEFAULT_STREAM

    def __init__(self, cuda: Driver, index: int) -> None:
        self._driver, self._index = cuda, index

    def wait(self) -> None:
        self._driver.settle(self._index)

    def to_device(self, buffer: _Buffer, size: int) -> None:
        self._driver.to_device(self._index, buffer.device, buffer.host, size)

    def to_host(self, buffer: _Buffer, size: int) -> None:
        self.wait()
        self._driver.to_host(self._index, buffer.host, buffer.device, size)

    def close(self) -> None:
        pass


class _Buffer:
    """Memory on the GPU and as much on the host; 0 are the addresses of none."""

    def __init__(self, cuda: Driver, index: int) -> None:
        self._driver, self._index = cuda, index
        self._memory = np.empty(0, np.uint8)
        self.device = self.host = 0

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes; what it held is lost if it has to grow."""
        if size > self._memory.size:
            self.close()
            self.device = self._driver.allocate(self._index, size)
            self._memory = _aligned(size)
            self.host = int(self._memory.ctypes.data)

    def view(self, offset: int, dtype: Any, count: int) -> np.ndarray[Any, Any]:
        """``count`` elements of the host's side, as an array that shares the memory."""
        return np.frombuffer(self._memory, dtype, count, offset) if count else np.empty(0, dtype)

    def close(self) -> None:
        device, self.device, self.host = self.device, 0, 0
        self._memory = np.empty(0, np.uint8)
        if device:
            self._driver.free(self._index, device)


def _aligned(size: int) -> np.ndarray[Any, Any]:
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]
