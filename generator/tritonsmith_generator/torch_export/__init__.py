"""PyTorch to ONNX, with a comparison of the two."""
