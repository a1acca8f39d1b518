"""The few CUDA calls that a plan needs, through NVIDIA's cuda-python (12 or 13)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

try:
    from cuda.bindings import runtime as rt
except ImportError:  # cuda-python before 12.6
    from cuda import cudart as rt

__all__ = ["Buffer", "Device", "Stream"]


def _checked(result: tuple[Any, ...]) -> Any:
    """Return what a call gives besides its status. Raises RuntimeError with CUDA's own words."""
    status, *values = result
    if int(status):
        text = rt.cudaGetErrorString(status)[1]
        raise RuntimeError(f"CUDA error {int(status)}: {text.decode()}")
    return values[0] if values else None


class Device:
    """One GPU, by Triton's number."""

    def __init__(self, index: int) -> None:
        self._index = index
        self.use()
        names = rt.cudaDeviceAttr
        major, minor = (
            _checked(rt.cudaDeviceGetAttribute(attribute, index))
            for attribute in (
                names.cudaDevAttrComputeCapabilityMajor,
                names.cudaDevAttrComputeCapabilityMinor,
            )
        )
        self.compute_capability = f"{major}.{minor}"

    def use(self) -> None:
        """Make it the GPU of this thread's calls."""
        _checked(rt.cudaSetDevice(self._index))

    def stream(self) -> Stream:
        return Stream()

    def buffer(self) -> Buffer:
        return Buffer()


class Stream:
    """An order of work on the GPU, apart from the default stream."""

    def __init__(self) -> None:
        self._stream = _checked(rt.cudaStreamCreateWithFlags(rt.cudaStreamNonBlocking))
        self.handle = int(self._stream)

    def wait(self) -> None:
        _checked(rt.cudaStreamSynchronize(self._stream))

    def to_device(self, buffer: Buffer, size: int) -> None:
        kind = rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(rt.cudaMemcpyAsync(buffer.device, buffer.host, size, kind, self._stream))

    def to_host(self, buffer: Buffer, size: int) -> None:
        kind = rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(rt.cudaMemcpyAsync(buffer.host, buffer.device, size, kind, self._stream))

    def close(self) -> None:
        _checked(rt.cudaStreamDestroy(self._stream))


class Buffer:
    """Memory on the GPU and as much pinned memory on the host; it grows and never shrinks.

    ``device`` and ``host`` are addresses, 0 before the first ``grow``.
    """

    def __init__(self) -> None:
        self.device = self.host = self.size = 0

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes; what the buffer held is lost if it has to grow."""
        if size > self.size:
            self.close()
            self.device = int(_checked(rt.cudaMalloc(size)))
            self.host = int(_checked(rt.cudaMallocHost(size)))
            self.size = size

    def view(self, offset: int, dtype: Any, count: int) -> np.ndarray[Any, Any]:
        """``count`` elements of the host's side, as an array that shares the memory."""
        length = count * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * length).from_address(self.host + offset)
        return np.frombuffer(memory, dtype, count)

    def close(self) -> None:
        device, host = self.device, self.host
        self.device = self.host = self.size = 0
        if device:
            _checked(rt.cudaFree(device))
        if host:
            _checked(rt.cudaFreeHost(host))
