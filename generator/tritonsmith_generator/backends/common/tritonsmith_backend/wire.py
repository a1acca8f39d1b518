"""Between Triton's tensors and numpy arrays, in the Python backend's stub.

BF16, which numpy has not, is an array of uint16 here. It crosses through DLPack: numpy's
capsule of a uint16 array becomes one of bfloat16, and back, by its type code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tritonsmith_backend.batching import Run, run_requests
from tritonsmith_backend.model_config import ModelConfig

__all__ = ["execute", "relabel", "warn"]

# DLDataTypeCode in dlpack.h
_UINT, _BFLOAT = 1, 4
# Where DLDataType.code lies in DLManagedTensor: after the data pointer, the device and ndim.
_CODE_OFFSET = 8 + 8 + 4


def relabel(capsule: Any, code: int) -> Any:
    """Give a DLPack capsule of 16-bit elements another type code; the data stays."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address = pointer(capsule, b"dltensor")
    ctypes.c_uint8.from_address(address + _CODE_OFFSET).value = code
    return capsule


class _AsUint16:
    """Offers a bfloat16 tensor to numpy as uint16."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **_: Any) -> Any:
        return relabel(self._tensor.to_dlpack(), _UINT)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU


class Model(Protocol):
    """What a backend makes of a model file."""

    config: ModelConfig
    run: Run


def warn(text: str) -> None:
    """Write a warning into the server's log."""
    import triton_python_backend_utils as pb_utils

    pb_utils.Logger.log_warn(text)


def execute(model: Model, requests: Sequence[Any]) -> list[Any]:
    """Return the body of ``execute``: one response for each request, errors included."""
    import triton_python_backend_utils as pb_utils

    dtypes = {t.name: t.dtype for t in (*model.config.inputs, *model.config.outputs)}
    inputs = [
        {tensor.name(): _to_numpy(tensor, dtypes[tensor.name()]) for tensor in request.inputs()}
        for request in requests
    ]
    wanted = [
        [t.name for t in model.config.outputs if t.name in set(request.requested_output_names())]
        for request in requests
    ]
    batched = model.config.max_batch_size > 0
    results = run_requests(inputs, wanted, model.run, batched)
    return [_response(pb_utils, result, dtypes) for result in results]


def _response(
    pb_utils: Any, result: Mapping[str, Any] | Exception, dtypes: Mapping[str, str]
) -> Any:
    if isinstance(result, Exception):
        error = pb_utils.TritonError
        code = error.INVALID_ARG if isinstance(result, ValueError) else error.INTERNAL
        return pb_utils.InferenceResponse([], error=error(str(result), code))
    tensors = [_to_triton(pb_utils, name, array, dtypes[name]) for name, array in result.items()]
    return pb_utils.InferenceResponse(tensors)


def _to_numpy(tensor: Any, dtype: str) -> np.ndarray[Any, Any]:
    if dtype != "TYPE_BF16":
        return np.asarray(tensor.as_numpy())
    return np.from_dlpack(_AsUint16(tensor))


def _to_triton(pb_utils: Any, name: str, array: np.ndarray[Any, Any], dtype: str) -> Any:
    array = np.ascontiguousarray(array).reshape(array.shape)  # a scalar stays one
    if dtype != "TYPE_BF16":
        return pb_utils.Tensor(name, array)
    owned = array if array.flags.writeable else array.copy()  # numpy exports no read-only array
    capsule = relabel(owned.__dlpack__(), _BFLOAT)
    # Triton's stub renames a capsule that it takes as no one else does, and numpy's destructor
    # can't stand that. The stub calls the tensor's own deleter, so none is needed.
    ctypes.pythonapi.PyCapsule_SetDestructor(ctypes.py_object(capsule), None)
    return pb_utils.Tensor.from_dlpack(name, capsule)
