"""Says how often it was called."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.calls = 0

    def execute(self, requests):
        responses = []
        for _ in requests:
            self.calls += 1
            calls = pb_utils.Tensor("CALLS", np.array([self.calls], np.int32))
            responses.append(pb_utils.InferenceResponse([calls]))
        return responses
