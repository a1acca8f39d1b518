"""Upper case of each string, and its length in bytes."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            upper = np.array([t.upper() for t in text.ravel()], object).reshape(text.shape)
            length = np.array([len(t) for t in text.ravel()], np.int64).reshape(text.shape)
            outputs = [pb_utils.Tensor("UPPER", upper), pb_utils.Tensor("LENGTH", length)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
