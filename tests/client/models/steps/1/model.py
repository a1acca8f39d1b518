"""COUNT responses to each request, which go on counting where those before in the sequence ended,
and how many sequences are open; an error where COUNT is negative."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        for request in requests:
            self._answer(request)

    def _answer(self, request):
        def given(name):
            return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()[0])

        id, sender, count = request.correlation_id(), request.get_response_sender(), given("COUNT")
        if given("START"):
            self.totals[id] = 0
        for _ in range(count):
            time.sleep(0.001)
            self.totals[id] += 1
            outputs = {"TOTAL": self.totals[id], "OPEN": len(self.totals)}
            tensors = [pb_utils.Tensor(n, np.array([[v]], np.int32)) for n, v in outputs.items()]
            sender.send(pb_utils.InferenceResponse(tensors))
        if count < 0:
            error = pb_utils.TritonError("told to fail")
            sender.send(pb_utils.InferenceResponse(output_tensors=[], error=error))
        if given("END"):
            del self.totals[id]
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
