"""Where an array of another library lies on a GPU: by DLPack or ``__cuda_array_interface__``."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from tritonsmith_client.errors import InputError

__all__ = ["DeviceArray", "device_array"]

_CUDA, _CUDA_MANAGED = 2, 13  # kDLCUDA, kDLCUDAManaged
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLDataTypeCode
_BFLOAT = 4


@dataclass(frozen=True)
class DeviceArray:
    """A row-major array on a GPU.

    Attributes:
        owner: keeps the memory.
    """

    owner: object
    device: int
    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


class _Tensor(ctypes.Structure):  # DLTensor of dlpack.h
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def device_array(value: Any) -> DeviceArray | None:
    """Where an array lies, if that is on a GPU; None for one in the host's memory, or none at all.

    Raises:
        InputError: it is not row-major, or of a data type that Triton has not.
    """
    if hasattr(value, "__dlpack_device__"):
        kind, device = value.__dlpack_device__()
        return _from_dlpack(value, int(device)) if kind in (_CUDA, _CUDA_MANAGED) else None
    if hasattr(value, "__cuda_array_interface__"):
        return _from_interface(value, value.__cuda_array_interface__)
    return None


def _from_dlpack(value: Any, device: int) -> DeviceArray:
    plain = value.detach() if hasattr(value, "detach") else value  # torch, if it has a gradient
    capsule = plain.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    bits = tensor.bits * tensor.lanes
    if tensor.code == _BFLOAT and bits == 16:
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif tensor.code in _KINDS and bits in (8, 16, 32, 64):
        dtype = np.dtype(f"{_KINDS[tensor.code]}{bits // 8}")
    else:
        raise InputError(f"a DLPack array of type {tensor.code} with {bits} bits cannot be sent")
    _check_order(shape, strides)
    # The capsule, not the value: it keeps the memory even if the value is given another one.
    return DeviceArray(capsule, device, (tensor.data or 0) + tensor.byte_offset, dtype, shape)


def _from_interface(value: Any, said: dict[str, Any]) -> DeviceArray:
    from tritonsmith_client.cuda_driver import driver

    dtype, shape = np.dtype(said["typestr"]), tuple(said["shape"])
    strides = said.get("strides")
    if strides is not None:
        strides = tuple(n // dtype.itemsize for n in strides)
    _check_order(shape, strides)
    address = int(said["data"][0])
    return DeviceArray(value, driver().device_of(address), address, dtype, shape)


def _check_order(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> None:
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if length > 1 and stride != step:
            raise InputError("the array on the GPU is not contiguous: call .contiguous() before")
        step *= length
