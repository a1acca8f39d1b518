"""Declares FP32 [4] and answers with INT8 [2, 3] and, if FEW is set, with nothing at all."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            few = pb_utils.get_input_tensor_by_name(request, "FEW").as_numpy()[0]
            outputs = [pb_utils.Tensor("OUT", np.arange(6, dtype=np.int8).reshape(2, 3))]
            responses.append(pb_utils.InferenceResponse([] if few else outputs))
        return responses
