"""The current OpenTelemetry span goes along with each call."""

from __future__ import annotations

import asyncio
import socket
import sys

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from support.wire.scripted import ScriptedServer, read_request

from tritonsmith_client import AsyncClient, Client, InputError
from tritonsmith_client.opentelemetry import trace_headers
from tritonsmith_generator.serve import Server


def test_the_span_goes_along() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while True:
            seen.append(read_request(connection))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    tracer = TracerProvider().get_tracer("test")
    with (
        ScriptedServer(script) as server,
        Client(f"http://{server.address}", headers=trace_headers) as client,
        tracer.start_as_current_span("outer") as span,
    ):
        assert client.live()
    assert f"-{span.get_span_context().trace_id:032x}-"[1:-1].encode() in seen[0]
    assert b"traceparent: 00-" in seen[0]


def test_the_model_can_see_the_span(forwarding: Server, url: str) -> None:
    address = forwarding.grpc_url if url.startswith("grpc") else forwarding.http_url
    tracer = TracerProvider().get_tracer("test")
    zero = np.zeros(1, np.float32)

    async def ask() -> str:
        async with AsyncClient(address, headers=trace_headers) as other:
            return str((await (await other.model("wishes"))(zero))["SAID"].item())

    with Client(address, headers=trace_headers) as client:
        model = client.model("wishes")
        for how in ("sync", "async"):
            with tracer.start_as_current_span("outer") as span:
                said = str(model(zero)["SAID"].item()) if how == "sync" else asyncio.run(ask())
                context = span.get_span_context()
                assert f"00-{context.trace_id:032x}-{context.span_id:016x}-" in said


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InputError, match=r"pip install tritonsmith\[otel\]"):
        trace_headers()
