"""Which GPUs and which TensorRT libraries this machine has; quick, and never an error.

The driver's own libraries are asked through ctypes: no CUDA package is needed.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Gpu", "visible_gpus"]

# CUdevice_attribute in cuda.h
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA programs of this process can use.

    Attributes:
        index: as CUDA counts (``CUDA_VISIBLE_DEVICES`` is heeded), and as Triton's ``gpus`` does.
        compute_capability: ``"8.9"``.
        memory: bytes in all.
        driver: the driver's version, e.g. ``"580.95.05"``; ``"unknown"`` where it cannot be read.
        uuid: names it on this machine, as ``nvidia-smi`` and ``CUDA_VISIBLE_DEVICES`` do.
    """

    index: int
    name: str
    compute_capability: str
    memory: int
    driver: str
    uuid: str = ""


@cache
def visible_gpus() -> tuple[Gpu, ...]:
    """List the GPUs of this machine; empty without a GPU or a working driver."""
    try:
        return _ask_driver(ctypes.CDLL("libcuda.so.1"))
    except (OSError, AttributeError):  # no such library, or one that lacks a function
        return ()


def _ask_driver(cuda: Any) -> tuple[Gpu, ...]:
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    driver = _driver_version()
    return tuple(_gpu(cuda, index, driver) for index in range(count.value))


def _gpu(cuda: Any, index: int, driver: str) -> Gpu:
    from uuid import UUID

    device, number = ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    identity = ctypes.create_string_buffer(16)
    cuda.cuDeviceGetUuid(identity, device)
    capability = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(str(number.value))
    uuid = f"GPU-{UUID(bytes=identity.raw)}"
    return Gpu(index, name.value.decode(), ".".join(capability), memory.value, driver, uuid)


def _driver_version() -> str:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(96)
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
            return text.value.decode()
    except (OSError, AttributeError):
        pass  # a Jetson or a slim container; the kernel module says it too
    version = Path("/proc/driver/nvidia/version")
    found = re.search(r"\d+\.\d+(\.\d+)?", version.read_text()) if version.is_file() else None
    return found.group() if found else "unknown"
