"""Starts servers: the embedded tritonserver, and NVIDIA's container."""

from __future__ import annotations

from tritonsmith_generator.serve.log import LogLine
from tritonsmith_generator.serve.server import Server

__all__ = ["LogLine", "Server"]
