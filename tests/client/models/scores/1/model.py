"""Gives back its scores, which have labels, and a text, which has none."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        scores = pb_utils.get_input_tensor_by_name(request, "SCORES").as_numpy()
        text = np.full((len(scores), 1), b"text", object)
        outputs = {"PROBABILITY": scores, "TEXT": text}
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(n, outputs[n]) for n in request.requested_output_names()]
        )
