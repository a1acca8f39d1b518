"""OpenTelemetry: the caller's trace goes on in the server.

from tritonsmith_client.opentelemetry import trace_headers

client = Client("localhost:8001", headers=trace_headers)
"""

from __future__ import annotations

from tritonsmith_client.errors import InputError

__all__ = ["trace_headers"]


def trace_headers() -> dict[str, str]:
    """Return the headers that carry the current span, for ``Client(headers=trace_headers)``.

    Raises:
        InputError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import propagate
    except ImportError as exc:
        raise InputError("OpenTelemetry is not installed: pip install tritonsmith[otel]") from exc
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
