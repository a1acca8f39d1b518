"""Fails as it is told: CODE is a number of TritonError, and 0 raises a Python exception."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        code = int(pb_utils.get_input_tensor_by_name(request, "CODE").as_numpy()[0])
        if code == 0:
            raise ValueError("told to raise")
        error = pb_utils.TritonError(f"told to fail with {code}", code)
        return pb_utils.InferenceResponse([], error)
