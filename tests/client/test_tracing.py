"""The current OpenTelemetry span goes along with each call."""

from __future__ import annotations

import socket
import sys

import pytest
from support.scripted import ScriptedServer, read_request

from tritonsmith_client import Client, InputError
from tritonsmith_client.tracing import trace_headers


def test_the_span_goes_along() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while True:
            seen.append(read_request(connection))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    trace.set_tracer_provider(TracerProvider())
    with (
        ScriptedServer(script) as server,
        Client(f"http://{server.address}", headers=trace_headers) as client,
        trace.get_tracer("test").start_as_current_span("outer") as span,
    ):
        assert client.live()
    assert f"-{span.get_span_context().trace_id:032x}-"[1:-1].encode() in seen[0]
    assert b"traceparent: 00-" in seen[0]


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InputError, match="pip install opentelemetry-api"):
        trace_headers()
