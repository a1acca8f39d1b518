"""A thin, fast client for NVIDIA Triton Inference Server."""
