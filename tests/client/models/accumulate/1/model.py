"""The running sum of each sequence, and how many sequences are open."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        def given(name):
            return pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()[0]

        id = request.correlation_id()
        if given("START"):
            self.sums[id] = 0
        self.sums[id] += given("VALUE")
        outputs = {"SUM": self.sums[id], "OPEN": len(self.sums)}
        if given("END"):
            del self.sums[id]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(n, np.array([[v]], np.int32)) for n, v in outputs.items()]
        )
