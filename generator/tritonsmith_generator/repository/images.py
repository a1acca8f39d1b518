"""The names of NVIDIA's images; no docker package is needed to know them."""

from __future__ import annotations

__all__ = ["NVIDIA_IMAGE"]

NVIDIA_IMAGE = "nvcr.io/nvidia/tritonserver:{release}-py3"
