"""An ONNX file: read, checked, its signature, its profiles, its reference answers."""
