"""The few calls of the CUDA driver that shared memory on a GPU needs.

Through ctypes and the driver's own library: it is there wherever a GPU can be used, its interface
does not change, and what it allocates is the runtime library's and PyTorch's too (they all use the
device's primary context).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import cache
from typing import Any

from tritonsmith_client.errors import CudaError, InputError

__all__ = ["Driver", "driver"]

_LIBRARIES = ("libcuda.so.1", "libcuda.so")
_HANDLE = 64  # bytes of a CUipcMemHandle
_DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


class _Handle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_ubyte * _HANDLE)]


@cache
def driver() -> Driver:
    """Return the driver of this process. Raises InputError where there is none."""
    for name in _LIBRARIES:
        try:
            return Driver(ctypes.CDLL(name))
        except OSError:
            continue
    raise InputError(
        "CUDA shared memory needs NVIDIA's driver, whose libcuda.so.1 was not found: install the "
        "driver, or start the container with --gpus all"
    )


class Driver:
    """Calls of one driver library, on the primary context of a device; threads may share it."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._call("cuInit", c_int(0))
        self._contexts: dict[int, c_void_p] = {}

    def allocate(self, device: int, size: int) -> int:
        """Return the address of new memory of so many bytes."""
        address = c_uint64()
        with self._on(device):
            self._call("cuMemAlloc_v2", byref(address), c_size_t(size))
        return address.value

    def free(self, device: int, address: int) -> None:
        with self._on(device):
            self._call("cuMemFree_v2", c_uint64(address))

    def allocation(self, device: int, address: int) -> tuple[int, int]:
        """Start and size of the allocation that holds this address."""
        start, size = c_uint64(), c_size_t()
        with self._on(device):
            self._call("cuMemGetAddressRange_v2", byref(start), byref(size), c_uint64(address))
        return start.value, size.value

    def device_of(self, address: int) -> int:
        """Return the number of the GPU that an address belongs to."""
        number = c_int()
        self._call(
            "cuPointerGetAttribute", byref(number), c_int(_DEVICE_ORDINAL), c_uint64(address)
        )
        return number.value

    def handle(self, device: int, address: int) -> bytes:
        """Return what another process opens an allocation with."""
        handle = _Handle()
        with self._on(device):
            self._call("cuIpcGetMemHandle", byref(handle), c_uint64(address))
        return bytes(handle.reserved)

    def to_device(self, device: int, address: int, source: int, size: int) -> None:
        """Copy from the host's memory; done when it returns."""
        with self._on(device):
            self._call("cuMemcpyHtoD_v2", c_uint64(address), c_void_p(source), c_size_t(size))
            self._call("cuCtxSynchronize")

    def to_host(self, device: int, target: int, address: int, size: int) -> None:
        """Copy to the host's memory; done when it returns."""
        with self._on(device):
            self._call("cuMemcpyDtoH_v2", c_void_p(target), c_uint64(address), c_size_t(size))

    def on_device(self, device: int, address: int, source: int, size: int) -> None:
        """Copy within a device; done when it returns."""
        with self._on(device):
            self._call("cuMemcpyDtoD_v2", c_uint64(address), c_uint64(source), c_size_t(size))
            self._call("cuCtxSynchronize")

    def settle(self, device: int) -> None:
        """Wait until the device has done everything that this process asked for."""
        with self._on(device):
            self._call("cuCtxSynchronize")

    @contextmanager
    def _on(self, device: int) -> Iterator[None]:
        context = self._contexts.get(device)
        if context is None:
            number, context = c_int(), c_void_p()
            self._call("cuDeviceGet", byref(number), c_int(device))
            self._call("cuDevicePrimaryCtxRetain", byref(context), number)
            self._contexts[device] = context
        self._call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def _call(self, name: str, *arguments: Any) -> None:
        """Arguments are ctypes values. Raises CudaError."""
        status = getattr(self._library, name)(*arguments)
        if status:
            text = c_char_p()
            self._library.cuGetErrorString(c_int(status), byref(text))
            said = (text.value or b"unknown error").decode()
            raise CudaError(f"{name} of the CUDA driver failed: {said} (CUDA error {status})")
