"""Fails as it is told: KIND names an error of TritonError; any other word raises an exception."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        kind = pb_utils.get_input_tensor_by_name(request, "KIND").as_numpy()[0].decode()
        code = getattr(pb_utils.TritonError, kind, None)
        if code is None:
            raise ValueError("told to raise")
        error = pb_utils.TritonError(f"told to fail with {kind}", code)
        return pb_utils.InferenceResponse(output_tensors=[], error=error)
