"""Waits for so many seconds, then says how many requests came before."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.order = 0

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        time.sleep(float(pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()[0, 0]))
        self.order += 1
        order = pb_utils.Tensor("ORDER", np.array([[self.order]], np.int32))
        return pb_utils.InferenceResponse([order])
