"""Cases in the shapes that clients see: a config's ``reshape`` makes the model's of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput, ModelOutput

from tritonsmith_generator.onnx_model.case_file import Case

__all__ = ["wire_case"]

Array = np.ndarray[Any, Any]


def wire_case(case: Case, config: ModelConfig) -> Case:
    """Return a case of the model's as a client sends it, and as it gets the answer."""
    tensors = {tensor.name: tensor for tensor in (*config.input, *config.output)}
    batched = config.max_batch_size > 0

    def wire(arrays: dict[str, Array]) -> dict[str, Array]:
        return {
            name: _wire(array, tensors[name], batched) if name in tensors else array
            for name, array in arrays.items()
        }

    return Case(wire(case.inputs), wire(case.outputs))


def _wire(array: Array, tensor: ModelInput | ModelOutput, batched: bool) -> Array:
    """Triton fills each -1 in ``dims`` with the size of that in ``reshape``, in this order."""
    inner = array.shape[batched:]
    if not tensor.HasField("reshape") or len(inner) != len(tensor.reshape.shape):
        return array
    pairs = zip(inner, tensor.reshape.shape, strict=True)
    dynamic = iter([size for size, dim in pairs if dim < 0])
    dims = [next(dynamic, dim) if dim < 0 else dim for dim in tensor.dims]
    return array.reshape((*array.shape[:batched], *dims))
