"""Passes: steps from one ONNX file to another, each with what it needs, ensures and reports."""
