"""Triton's protocol as values: requests, answers and administration, over HTTP or gRPC."""
