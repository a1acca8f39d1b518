"""Says what it was told besides its input: parameters, priority, timeout, id and sequence."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self._said(request)]) for request in requests]

    def _said(self, request):
        said = {
            "id": request.request_id(),
            "parameters": json.loads(request.parameters()),
            "timeout": request.timeout(),
        }
        text = json.dumps(said, sort_keys=True).encode()
        return pb_utils.Tensor("SAID", np.array([text], object))
