"""ONNX models to a Triton model repository that is proven to load, to be right and to be fast."""
