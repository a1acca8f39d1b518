"""What the Python-based Triton backends of tritonsmith share.

It runs inside the server, in the Python backend's stub (Python 3.10 to 3.12, numpy 1), where
tritonsmith is not installed. Only ``wire`` touches Triton's own module, and only when called,
so the rest can be tested anywhere.
"""

import os

# ONNX Runtime reports to Microsoft which models it loads, unless it finds this when imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
