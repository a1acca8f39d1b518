"""COUNT responses after DELAY seconds each: 0, 1, 2 ...; then an error if FAIL is set."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            self._answer(request)

    def _answer(self, request):
        def given(name):
            return pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0]

        sender = request.get_response_sender()
        for number in range(int(given("COUNT"))):
            time.sleep(float(given("DELAY")))
            if request.is_cancelled():
                break
            tensor = pb_utils.Tensor("NUMBER", np.array([number], np.int32))
            sender.send(pb_utils.InferenceResponse([tensor]))
        if given("FAIL"):
            error = pb_utils.TritonError("told to fail in the middle")
            sender.send(pb_utils.InferenceResponse(output_tensors=[], error=error))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
