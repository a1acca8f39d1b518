"""Gives back X as Y, with the number of calls so far; fails for what starts below 0."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.calls = 0

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        self.calls += 1
        given = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        if given[0] < 0:
            error = pb_utils.TritonError(f"call {self.calls} was told to fail")
            return pb_utils.InferenceResponse(output_tensors=[], error=error)
        calls = np.array([self.calls], np.int64)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("Y", given), pb_utils.Tensor("CALLS", calls)]
        )
