"""Gives back each input it is given, IN_x as OUT_x."""

import triton_python_backend_utils as pb_utils

NAMES = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
    "BF16",
]


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse(self._outputs(request)) for request in requests]

    def _outputs(self, request):
        given = ((n, pb_utils.get_input_tensor_by_name(request, f"IN_{n}")) for n in NAMES)
        return [self._same(name, tensor) for name, tensor in given if tensor is not None]

    def _same(self, name, tensor):
        if name == "BF16":  # numpy has no such type
            return pb_utils.Tensor.from_dlpack(f"OUT_{name}", tensor.to_dlpack())
        return pb_utils.Tensor(f"OUT_{name}", tensor.as_numpy())
