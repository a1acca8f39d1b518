"""What the Python-based Triton backends of tritonsmith share.

It runs inside the server, in the Python backend's stub (Python 3.10 to 3.12, numpy 1), where
tritonsmith is not installed. Only ``wire`` touches Triton's own module, and only when called,
so the rest can be tested anywhere.
"""
